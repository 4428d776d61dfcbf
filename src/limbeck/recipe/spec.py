"""The recipe: everything that describes a run, as typed data. Torch is not imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from limbeck.errors import nearest


class Spec(BaseModel):
    """Base of every piece of a recipe: frozen, unknown keys refused with a suggestion."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    hint = nearest(str(key), cls.model_fields)
                    raise ValueError(f"unknown key {key!r}{hint} (known keys: {known})")
        return value


def _as_list(value: Any) -> Any:
    """One item where a list is expected is a list of one."""
    return [value] if isinstance(value, str | dict | int | float) else value


def _named(key: str, spec: Any) -> Any:
    """A bare string stands for the spec with only `key` set."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value,
        json_schema_input_type=str | spec,
    )


def _several(item: Any) -> Any:
    """A list, or one item that stands for a list of one."""
    return BeforeValidator(_as_list, json_schema_input_type=item | list[item])


Temperature = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Numbers = Annotated[list[float], _several(float)]
Names = Annotated[list[str], _several(str)]
Fast = Literal["fold", "channels_last", "chunks", "bf16", "compile"]


class InputSpec(Spec):
    """How a model wants its images; None takes the data's own statistics and size.

    Attributes:
        mean: of each channel, of images in [0, 1].
        std: of each channel, given with `mean`.
        size: pixels to resize to: one number, or height and width.
    """

    mean: Numbers | None = None
    std: Numbers | None = None
    size: int | tuple[int, int] | None = None


class TeacherSpec(Spec):
    """One teacher.

    Attributes:
        model: `SOURCE:NAME[?key=value][@WEIGHTS]`, or the folder of a run.
        input: its own normalisation and resolution, where they differ from the student's.
        classes: for each of the teacher's outputs the class name or number it stands for.
        taps: module paths to read besides the logits.
        fast: ways to make it faster. `fold` (frozen batch norms into convolutions),
            `channels_last` and `chunks` (samples that fit the cache) change nothing but the order
            of additions; `bf16` rounds, `compile` takes its time at first.
    """

    model: str
    input: InputSpec | None = None
    classes: list[str | int] | None = None
    taps: Names = []
    fast: Annotated[list[Fast], _several(Fast)] = ["fold", "channels_last", "chunks"]


NamedTeacher = Annotated[TeacherSpec, _named("model", TeacherSpec)]
NamedTeachers = Annotated[list[NamedTeacher], _several(NamedTeacher)]


class DataSpec(Spec):
    """Where the samples come from, and how they are split.

    Attributes:
        source: a named set, or the path of an `.npz`, `.csv`, `.parquet` file or an image folder.
        unlabeled: a further source whose samples have no labels (the pool).
        label: column of the label in tables (default: `label`).
        text: column of the text in tables; None uses `text` where it exists.
        encode: how texts become vectors.
        features: width of the encoded text (hashed columns, or components of the SVD).
        length: tokens kept of each text with `encode: tokens`.
        val: share of the training samples held out for validation where the source has none.
        test: share held out for the test where the source has no such part.
        limit: use only this many training samples (stratified), validation included.
        labels: keep the labels of only this many training samples; the others join the pool.
        split_seed: seed of every random split.
        stream: read samples from disk batch by batch; None decides by size.
        size: resize images to this many pixels (folders of images).
    """

    source: str = "digits"
    unlabeled: str | None = None
    label: str = "label"
    text: str | None = None
    encode: Literal["hash", "tfidf", "tokens"] = "tfidf"
    features: int = Field(256, ge=1)
    length: int = Field(64, ge=1)
    val: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    limit: int | None = Field(None, ge=2)
    labels: int | None = Field(None, ge=1)
    split_seed: int = Field(0, ge=0)
    stream: bool | None = None
    size: int | None = Field(None, ge=1)


class Optimizer(Spec):
    """The optimiser of one role, in torch's words.

    Attributes:
        name: which one.
        lr: learning rate at the top of the schedule.
        momentum: of `sgd`.
        nesterov: of `sgd`.
        betas: of `adam` and `adamw`.
        weight_decay: of all parameters.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(5e-4, ge=0)


class Schedule(Spec):
    """Learning rate over the training, after `warmup` epochs of linear growth from zero.

    Attributes:
        name: `cosine` to zero, `multistep` (times `gamma` at each milestone) or `constant`.
        warmup: epochs, may be fractional.
        milestones: shares of the training in (0, 1) at which `multistep` steps.
        gamma: factor of each step.
    """

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    warmup: float = Field(0.0, ge=0)
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = [0.625, 0.75, 0.875]
    gamma: float = Field(0.1, gt=0, le=1)


View = str | dict[str, dict[str, Any]]
"""An augmentation by name, or `{name: {option: value}}`."""


class Training(Spec):
    """How a student is trained.

    Attributes:
        epochs: passes over the labelled training samples.
        batch: samples in a step, over all ranks and accumulated micro-batches.
        optimizer: of every role that `optimizers` does not name.
        optimizers: of the roles of a method, by the role's name.
        schedule: of the learning rate.
        clip: largest gradient norm of a role, None: no clipping.
        accumulate: micro-batches in which a step's batch is computed.
        precision: `fp32`, or `bf16` (autocast; losses stay in fp32).
        ema: decay of the exponential moving average of the student, None: no average.
        views: augmentations, as names or `{name: {option: value}}`; empty: clean samples.
        view_count: replay this many views per sample, of which the first is the clean sample; None
            draws fresh ones every epoch.
        pool_ratio: unlabelled samples in a batch for each labelled one, where data has a pool.
        class_weights: weight of each class in the supervised loss, or `balanced`.
        label_smoothing: of the supervised loss.
        metric: validation metric of `keep: best` and early stopping; a name or `module:function`.
        keep: the epoch whose student is delivered: `last`, or `best` on validation.
        early_stop: stop after this many evaluations without a better metric, None: never.
        eval_every: epochs between evaluations.
        log_every: steps between two log lines (and host synchronisations).
        checkpoint_every: epochs between checkpoints.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        workers: threads that read streamed samples ahead.
        strategy: `replicate`, or `shard` the student over the ranks.
        reuse_outputs: keep a teacher's logits for views that come again in memory.
        channels_last: lay the student's convolutions out channels last: faster on most machines,
            other last bits.
        compile: compile the student with `torch.compile`.
    """

    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=1)
    optimizer: Optimizer = Optimizer()
    optimizers: dict[str, Optimizer] = {}
    schedule: Annotated[Schedule, _named("name", Schedule)] = Schedule()
    clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float | None = Field(None, gt=0, lt=1)
    views: Annotated[list[View], _several(View)] = []
    view_count: int | None = Field(None, ge=1)
    pool_ratio: int = Field(1, ge=1)
    class_weights: list[float] | Literal["balanced"] | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    metric: str = "accuracy"
    keep: Literal["last", "best"] = "last"
    early_stop: int | None = Field(None, ge=1)
    eval_every: int = Field(1, ge=1)
    log_every: int = Field(50, ge=1)
    checkpoint_every: int = Field(1, ge=1)
    device: str = "auto"
    workers: int = Field(0, ge=0)
    strategy: Literal["replicate", "shard"] = "replicate"
    reuse_outputs: bool = True
    channels_last: bool = False
    compile: bool = False

    @field_validator("precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: Any) -> Any:
        if value in ("fp16", "float16", "16"):
            raise ValueError(
                "fp16 needs loss scaling, which the methods that differentiate twice cannot use; "
                "take bf16"
            )
        return value


class ArmSpec(Spec):
    """What one arm of a comparison changes in the recipe; None keeps the recipe's own value.

    Attributes:
        method: as `method` of the recipe.
        student: MODEL.
        teachers: as `teachers` of the recipe.
        training: keys of `training`, laid over the recipe's.
    """

    method: Any = None
    student: str | None = None
    teachers: NamedTeachers | None = None
    training: dict[str, Any] = {}


class CompareSpec(Spec):
    """Arms by seeds under one recipe.

    Attributes:
        arms: name to what the arm changes; `none` (no teacher) and `kd_tuned` always run too.
        seeds: how many seeds each arm is trained with: `seed`, `seed` + 1, ...
        temperatures: grid of the tuned KD arm.
        weights: grid of the tuned KD arm: share of the soft labels in the loss.
        metric: test metric that the arms are compared by.
    """

    arms: dict[str, ArmSpec] = {}
    seeds: int = Field(3, ge=2)
    temperatures: Annotated[list[Temperature], _several(Temperature)] = [1.0, 2.0, 4.0, 8.0]
    weights: Annotated[list[Share], _several(Share)] = [0.5, 0.9]
    metric: str = "accuracy"


def _with_teacher(schema: dict[str, Any]) -> None:
    """`teacher` is no field, but a key that editors should know: one of the `teachers`."""
    several = schema["properties"]["teachers"]["anyOf"]
    schema["properties"]["teacher"] = {"anyOf": [one for one in several if "items" not in one]}


class Recipe(Spec):
    """The whole description of a run. `method` is checked once torch is loaded.

    Attributes:
        task: what the student is for.
        student: MODEL, `SOURCE:NAME[?key=value&...][@WEIGHTS]`.
        teachers: MODEL, or a list of them; `teacher: X` is a list of one.
        data: a source, or where the samples come from and how they are split.
        method: a method's name, the name with its options, or a list of terms.
        training: how the student is trained.
        compare: arms and seeds, for `limbeck compare`.
        seed: of initialisation, batch order, views and dropout.
        out: the run folder; a new one under `runs/` where it is not said.
        input: the student's normalisation and resolution.
    """

    model_config = ConfigDict(json_schema_extra=_with_teacher)

    task: str = "classification"
    student: str = ""
    teachers: NamedTeachers = []
    data: Annotated[DataSpec, _named("source", DataSpec)] = DataSpec()
    method: Any = "kd"
    training: Training = Training()
    compare: CompareSpec | None = None
    seed: int = Field(0, ge=0)
    out: str | None = None
    input: InputSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_teacher(cls, value: Any) -> Any:
        """`teacher: X` is `teachers: [X]`."""
        if isinstance(value, dict) and "teacher" in value:
            value = dict(value)
            if value.get("teachers"):
                raise ValueError("give either 'teacher' or 'teachers', not both")
            value["teachers"] = [value.pop("teacher")]
        return value
