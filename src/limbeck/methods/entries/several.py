"""Methods that hear several teachers, each with its own voice."""

from limbeck.methods.entry import Entry

METHODS: dict[str, Entry] = {
    "ensemble": Entry(
        "Several teachers: their mean, or weights of each sample or batch by a rule",
        "Hinton et al. 2015, arXiv:1503.02531",
        "several teachers",
        "limbeck.methods.ensemble:Ensemble",
    ),
    "adaptive_ensemble": Entry(
        "Several teachers, weighted in every step where their gradients agree",
        "Du et al. 2020, NeurIPS 2020",
        "several teachers",
        "limbeck.methods.adaptive_ensemble:AdaptiveEnsemble",
    ),
    "ensemble_diversity": Entry(
        "A student of several members, each with its teacher, where the teachers disagree",
        "Nam et al. 2021, arXiv:2110.14149",
        "several live teachers",
        "limbeck.methods.ensemble_diversity:EnsembleDiversity",
    ),
}
