"""Methods that compare features: stage by stage, or by how samples and channels relate."""

from limbeck.methods.entry import Entry

METHODS: dict[str, Entry] = {
    "fitnet": Entry(
        "The student's middle maps as the teacher's",
        "Romero et al. 2015, arXiv:1412.6550",
        "features",
        "limbeck.methods.features:Fitnet",
    ),
    "at": Entry(
        "Where the channels together look",
        "Zagoruyko and Komodakis 2017, arXiv:1612.03928",
        "features",
        "limbeck.methods.features:At",
    ),
    "sp": Entry(
        "Similarities between the samples of a batch",
        "Tung and Mori 2019, arXiv:1907.09682",
        "features",
        "limbeck.methods.features:Sp",
    ),
    "cc": Entry(
        "Kernels between the samples of a batch",
        "Peng et al. 2019, arXiv:1904.01802",
        "features",
        "limbeck.methods.features:Cc",
    ),
    "rkd": Entry(
        "Distances and angles between samples",
        "Park et al. 2019, arXiv:1904.05068",
        "features",
        "limbeck.methods.features:Rkd",
    ),
    "pkt": Entry(
        "Neighbor probabilities in a batch",
        "Passalis and Tefas 2018, arXiv:1803.10837",
        "features",
        "limbeck.methods.features:Pkt",
    ),
    "vid": Entry(
        "A Gaussian around a prediction of the teacher's maps",
        "Ahn et al. 2019, arXiv:1904.05835",
        "features",
        "limbeck.methods.vid:Vid",
    ),
    "nst": Entry(
        "How the channels' maps are distributed",
        "Huang and Wang 2017, arXiv:1707.01219",
        "features",
        "limbeck.methods.features:Nst",
    ),
    "fsp": Entry(
        "How features flow from stage to stage",
        "Yim et al. 2017, CVPR",
        "features",
        "limbeck.methods.fsp:Fsp",
    ),
    "ab": Entry(
        "On which side of zero each neuron stands",
        "Heo et al. 2019, arXiv:1811.03233",
        "features",
        "limbeck.methods.ab:Ab",
    ),
    "ofd": Entry(
        "Partial distance behind a margin ReLU",
        "Heo et al. 2019, arXiv:1904.01866",
        "features",
        "limbeck.methods.ofd:Ofd",
    ),
    "crd": Entry(
        "Each sample told from the others, with a memory",
        "Tian et al. 2020, arXiv:1910.10699",
        "features, labels",
        "limbeck.methods.crd:Crd",
    ),
    "reviewkd": Entry(
        "The student's stages fused to the teacher's",
        "Chen et al. 2021, arXiv:2104.09044",
        "features",
        "limbeck.methods.reviewkd:ReviewKD",
    ),
    "ickd": Entry(
        "Correlations between channels",
        "Liu et al. 2021, ICCV",
        "features",
        "limbeck.methods.features:Ickd",
    ),
    "srrl": Entry(
        "The teacher's classifier on the student's features",
        "Yang et al. 2021, ICLR",
        "features, live teacher",
        "limbeck.methods.srrl:Srrl",
    ),
    "semckd": Entry(
        "Every stage from every stage, by attention",
        "Chen et al. 2021, arXiv:2012.03236",
        "features, labels",
        "limbeck.methods.semckd:SemCKD",
    ),
    "simkd": Entry(
        "The teacher's own classifier behind a projector",
        "Chen et al. 2022, arXiv:2203.14001",
        "features, live teacher",
        "limbeck.methods.simkd:SimKD",
    ),
    "catkd": Entry(
        "The maps that the classifiers draw of the classes",
        "Guo et al. 2023, CVPR",
        "features, live teacher",
        "limbeck.methods.catkd:CatKD",
    ),
    "mgd": Entry(
        "The teacher's maps restored from masked ones",
        "Yang et al. 2022, arXiv:2205.01529",
        "features",
        "limbeck.methods.mgd:Mgd",
    ),
    "cwd": Entry(
        "Each channel's distribution over positions",
        "Shu et al. 2021, arXiv:2011.13256",
        "features",
        "limbeck.methods.features:Cwd",
    ),
    "pkd": Entry(
        "Correlation of each channel",
        "Cao et al. 2022, arXiv:2207.02039",
        "features",
        "limbeck.methods.features:Pkd",
    ),
    "srd": Entry(
        "A power of differences, behind one projection",
        "Miles and Mikolajczyk 2024, arXiv:2303.11098",
        "features",
        "limbeck.methods.features:Srd",
    ),
    "vkd": Entry(
        "Standardized features behind a rotation",
        "Miles et al. 2024, arXiv:2403.06213",
        "features",
        "limbeck.methods.vkd:Vkd",
    ),
    "cosine_smooth_l1": Entry(
        "Cosine and smooth L1 of each token",
        "Ranzinger et al. 2024, arXiv:2312.06709",
        "features",
        "limbeck.methods.features:CosineSmoothL1",
    ),
    "factor_transfer": Entry(
        "A paraphrase of the teacher's features, translated",
        "Kim et al. 2018, arXiv:1802.04977",
        "features",
        "limbeck.methods.factor:FactorTransfer",
    ),
}
