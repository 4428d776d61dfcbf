"""Methods whose logits or teachers are made on the way: exits, regions, temperatures, peers."""

from limbeck.methods.entry import Entry

METHODS: dict[str, Entry] = {
    "ofa": Entry(
        "The teacher's logits at exits of the student's stages",
        "Hao et al. 2023, arXiv:2310.19444",
        "logits, labels",
        "limbeck.methods.ofa:Ofa",
    ),
    "sdd": Entry(
        "Logits of image regions",
        "Wei et al. 2024, arXiv:2403.13512",
        "features, labels, live teacher",
        "limbeck.methods.sdd:Sdd",
    ),
    "ctkd": Entry(
        "KD at a temperature that learns against the student",
        "Li et al. 2023, arXiv:2211.16231",
        "logits",
        "limbeck.methods.ctkd:Ctkd",
    ),
    "pskd": Entry(
        "The student's own word an epoch ago",
        "Kim et al. 2021, arXiv:2006.12000",
        "labels",
        "limbeck.methods.pskd:Pskd",
    ),
    "dml": Entry(
        "Students that teach each other while they learn",
        "Zhang et al. 2018, arXiv:1706.00384",
        "labels",
        "limbeck.methods.dml:Dml",
    ),
}
