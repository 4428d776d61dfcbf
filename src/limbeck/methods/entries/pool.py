"""Methods for a pool that a teacher labels, with mistakes."""

from limbeck.methods.entry import Entry

METHODS: dict[str, Entry] = {
    "slam": Entry(
        "The student's prediction mixed with the teacher's known noise",
        "Kontonis et al. 2023, arXiv:2302.03806",
        "pool, logits, validation labels",
        "limbeck.methods.slam:Slam",
    ),
    "weighted": Entry(
        "Pseudo-labels weighted so that the loss keeps its value",
        "Iliopoulos et al. 2022, arXiv:2210.06711",
        "pool, logits, validation labels",
        "limbeck.methods.weighted:Weighted",
    ),
    "pseudo_label": Entry(
        "What the teacher says of the pool, as it says it",
        "",
        "pool, logits",
        "limbeck.methods.pseudo_labels:PseudoLabel",
    ),
    "threshold": Entry(
        "Pseudo-labels of which the teacher is sure",
        "Sohn et al. 2020, arXiv:2001.07685",
        "pool, logits, validation labels",
        "limbeck.methods.pseudo_labels:Threshold",
    ),
    "forward": Entry(
        "The prediction sent through the teacher's confusion matrix",
        "Patrini et al. 2017, arXiv:1609.03683",
        "pool, logits, validation labels",
        "limbeck.methods.pseudo_labels:Forward",
    ),
    "taylor": Entry(
        "A bounded cross-entropy on pseudo-labels",
        "Feng et al. 2020, IJCAI",
        "pool, logits",
        "limbeck.methods.pseudo_labels:Taylor",
    ),
}
