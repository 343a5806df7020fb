"""What trained networks say to labelled images: one, a mean of several, or several together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effnet.api.using import has_no_names, known_images, load, load_trained, open_images
from effnet.data.images import LabelledImages
from effnet.errors import UserError
from effnet.evaluation.answers import Answers, answer_images
from effnet.evaluation.averaging import mean_answers
from effnet.evaluation.predictor import Predictor
from effnet.evaluation.views import Views, answer_views, seen_whole
from effnet.export import is_exported
from effnet.training.experiment import choose_device
from effnet.weights import LoadedWeights, average_weights, save_weights, with_class_names

MOST_LOGIT_BYTES = 2 * 1024**3
"""The most memory for the logits of all images; there are some copies of them while they are measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSettings:
    """How networks are asked."""

    image_size: int | None = None
    """Pixels a side; None: as the weights say."""
    batch_size: int = 64
    """Images at a time."""
    views: Views = "one"
    """Of each image, whose probabilities are averaged."""
    only_present: bool = False
    """Leave out classes that no image has, as if the networks had never heard of them."""


def answer(
    source: str | Path,
    data: str | Path | None = None,
    *,
    split: str = "",
    settings: AnswerSettings = AnswerSettings(),
    model: str | None = None,
    device: str = "auto",
    class_names: str | None = None,
    soup: Sequence[str | Path] = (),
    ensemble: Sequence[str | Path] = (),
    report: Callable[[int, int], None] | None = None,
) -> Answers:
    """Return a network's logits of labelled images beside the truth.

    `effnet.evaluation.assessment.assess` measures them.

    Args:
        source: Run directory, file of weights, or hub name.
        data: Labelled images: their validation split where they have one, else all of them. None: the
            validation split of the run.
        split: Names of the splits of ``data`` to measure on instead, as ``test``.
        settings: How the network is asked.
        model: The network, where a file does not say.
        device: As ``train.device``.
        class_names: A file with the names of the classes, for weights that bring none.
        soup: Other sources whose weights are averaged with those of ``source``.
        ensemble: Other sources whose probabilities are averaged with those of ``source``, each with its own
            preprocessing.
        report: Told how many images have been answered, and of how many.

    Raises:
        UserError: Something that was given cannot be used, or the classes are not those of the network.
    """
    members = load_members(
        source, model=model, device=device, class_names=class_names, soup=soup, ensemble=ensemble
    )
    return answer_together(members, open_images(source, data, split), settings, report=report)


def load_members(
    source: str | Path,
    *,
    model: str | None = None,
    device: str = "auto",
    class_names: str | None = None,
    soup: Sequence[str | Path] = (),
    ensemble: Sequence[str | Path] = (),
) -> tuple[Predictor, ...]:
    """Load what answers together; arguments and errors as of `answer`."""
    if soup and ensemble:
        raise UserError(
            "weights are averaged by soup or probabilities by ensemble, not both; give one of them"
        )
    if soup:
        weights = load_soup([source, *soup], model=model, class_names=class_names)
        return (Predictor.from_weights(weights, device=choose_device(device)),)
    first = load(source, model=model, device=device, class_names=class_names)
    others = [load(each, device=device) for each in ensemble]
    for other in others:
        if class_names and has_no_names(other) and len(other.class_names) == len(first.class_names):
            other.class_names = first.class_names
    return (first, *others)


def load_soup(
    sources: Sequence[str | Path], *, model: str | None = None, class_names: str | None = None
) -> LoadedWeights:
    """Return the mean of weights; see `effnet.weights.average_weights`.

    Args:
        sources: Run directories, files or hub names.
        model: The network, where they do not say.
        class_names: A file with the names of the classes, where they bring none.

    Raises:
        UserError: There is no such thing, or they differ in more than their weights.
    """
    for source in sources:
        if is_exported(source):
            raise UserError(
                f"{source} was exported, so its weights cannot be averaged; give the run itself, or average "
                "probabilities with --ensemble"
            )
    weights = average_weights([load_trained(source, model=model) for source in sources])
    return with_class_names(weights, class_names, "--class-names") if class_names else weights


def save_soup(
    path: Path, sources: Sequence[str | Path], *, model: str | None = None, class_names: str | None = None
) -> None:
    """Write the mean of weights as a file that can be used like any other.

    Arguments and errors as of `load_soup`.

    Raises:
        OSError: The file cannot be written.
    """
    weights = load_soup(sources, model=model, class_names=class_names)
    save_weights(
        path,
        weights.state,
        weights.spec,
        class_names=weights.class_names,
        preprocessing=weights.preprocessing,
        provenance=weights.origin,
        output=weights.output,
    )


def answer_together(
    members: Sequence[Predictor],
    images: LabelledImages,
    settings: AnswerSettings = AnswerSettings(),
    *,
    report: Callable[[int, int], None] | None = None,
) -> Answers:
    """Return the mean answers of networks; the images are read for each of them anew.

    Args:
        members: Networks of the same classes; at least one.
        images: With labels.
        settings: How the networks are asked.
        report: Told how many images have been answered, and of how many.

    Raises:
        UserError: Classes are not those of the networks, none of the images can be read, or there are too
            many images and classes for memory.
    """
    answers = []
    for place, member in enumerate(members):
        known = known_images(images, member)
        if not fits_in_memory(known):
            raise UserError(
                f"the logits of {len(known)} images and {len(known.class_names)} classes take "
                f"{logit_bytes(known) / 1e9:.1f} GB, and at most {MOST_LOGIT_BYTES / 1e9:.1f} GB are kept; "
                "measure fewer images, or plain scores alone"
            )
        preprocessing = member.preprocessing
        if settings.image_size is not None:
            preprocessing = replace(preprocessing, image_size=settings.image_size)
        own = answer_images(
            answer_views(
                member.model, settings.views, image_size=preprocessing.image_size, output=member.output
            ),
            known,
            seen_whole(preprocessing, settings.views),
            device=member.device,
            batch_size=settings.batch_size,
            output=member.output,
            report=_counted(report, before=place * len(images), every=len(members) * len(images)),
        )
        answers.append(own.with_classes(present_classes(known)) if settings.only_present else own)
    return mean_answers(answers)


def present_classes(images: LabelledImages) -> tuple[str, ...]:
    """Return the classes that an image has, in the order of the labels."""
    counts = images.class_counts()
    return tuple(name for name, count in zip(images.class_names, counts, strict=True) if count)


def fits_in_memory(images: LabelledImages) -> bool:
    """Tell whether the logits of images with a network's classes may be kept."""
    return logit_bytes(images) <= MOST_LOGIT_BYTES


def logit_bytes(images: LabelledImages) -> int:
    """Return how much memory the logits of images with a network's classes take."""
    return 4 * len(images) * len(images.class_names)


def _counted(
    report: Callable[[int, int], None] | None, *, before: int, every: int
) -> Callable[[int], None] | None:
    return None if report is None else lambda done: report(before + done, every)
