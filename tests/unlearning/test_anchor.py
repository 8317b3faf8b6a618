"""Anchor operators: what the teacher is asked about, and that the numbers of an entry are its own."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from guda_cli.data.styles import ParsedPrompt, render
from guda_cli.diffusion.denoiser import Denoiser, add_noise
from guda_cli.errors import RecipeError
from guda_cli.families.stable_diffusion import ROW, TextDenoiser
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.anchor import Anchor, Matched, OtherStyle
from guda_cli.unlearning.operators.base import Problem, TextProblem
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.unlearn import step_loss
from tests.diffusion.tiny import PREDICTIONS, make_schedule
from tests.unlearning import text_problem
from tests.unlearning.helpers import ANCHORS, traits
from tests.unlearning.text_problem import COUNT, GROUPS, SPEC, STYLES, bank, entries, network, of, problem

OBJECT = {render(p.object, p.descriptors, SPEC): p.object for p in text_problem.parsed()}


@functools.cache
def frozen() -> torch.nn.Module:
    return network().eval()


def teacher(p: Problem) -> TextDenoiser:
    assert p.text is not None
    return TextDenoiser(frozen(), p.schedule, p.text.bank)


def anchor(p: Problem, full: Denoiser | None = None) -> Anchor:
    made = make(p, full or teacher(p))
    assert isinstance(made, Anchor)
    return made


def drawn(p: Problem, step: int = 0) -> dict[int, str]:
    """The anchor prompt of each entry of the group by its place in the batch."""
    made, part = anchor(p), entries(p, step)
    assert isinstance(made, OtherStyle)
    assert part.rows is not None
    return dict(zip(part.rows.tolist(), made.prompts(part), strict=True))


def split(prompt: str) -> tuple[str, tuple[str, ...]]:
    thing, _, style = prompt.partition(", artistic style featuring ")
    return thing, tuple(style.split(", "))


def styles_of(words: tuple[str, ...]) -> set[str]:
    return {name for name, own in STYLES.items() if set(words) <= set(own)}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("operator", ANCHORS)
def test_the_target_is_the_full_models_answer_to_what_is_asked(operator: str, prediction: str) -> None:
    schedule = make_schedule("linear", 60, prediction)
    p = problem(operator, schedule, forget_weight=0.5, t_min=0.3, t_max=0.9)
    made, part = anchor(p), entries(p)
    x_t, prompts = made.latents(part), made.prompts(part)
    assert p.text is not None
    with torch.no_grad():
        text = p.text.bank.rows(p.text.bank.indices(prompts))[ROW]
        target = teacher(p).network(x_t, part.t - 1, encoder_hidden_states=text).sample
    assert part.rows is not None
    inside = ((part.t >= 0.3 * 60) & (part.t <= 0.9 * 60)).float()
    assert 0 < inside.sum() < len(inside)
    found = made.redirect(part)
    torch.testing.assert_close(found.target, target)
    assert torch.equal(found.weight, 0.5 * inside)

    whole, plain = torch.randn(2, part.size, *text_problem.SHAPE, generator=torch.Generator().manual_seed(0))
    error = (whole - plain).square()
    error[part.rows] = (whole[part.rows] - target).square() * (0.5 * inside).view(-1, 1, 1, 1)
    torch.testing.assert_close(made.loss(whole, plain, part), error.flatten(1).mean(1).sum() / part.size)


@pytest.mark.parametrize("operator", ["anchor:awss", "anchor:uniform"])
def test_the_object_stays_and_the_style_is_another_groups(operator: str) -> None:
    p = problem(operator)
    seen: Counter[str] = Counter()
    for step in range(30):
        part = entries(p, step)
        assert p.text is not None
        for i, prompt in zip(part.indices.tolist(), drawn(p, step).values(), strict=True):
            thing, words = split(prompt)
            assert thing == OBJECT[p.text.prompts[i]]
            [style] = styles_of(words) - {"oil"} if len(words) == 3 else styles_of(words)
            assert len(words) == len(set(words)) == min(3, len(STYLES[style]))
            seen[style] += 1
    assert set(seen) == set(GROUPS) - {"oil"}


def test_styles_near_in_text_are_preferred() -> None:
    """`wash` shares a descriptor with `oil`, so it is nearer to its prompts than others are."""
    steep = anchor(problem("anchor:awss", beta=20.0, eta=0.3))
    even = anchor(problem("anchor:awss", beta=20.0, eta=1.0))
    assert isinstance(steep, OtherStyle)
    assert isinstance(even, OtherStyle)
    wash, oil = steep.names.index("wash"), steep.names.index("oil")
    assert steep.text.parsed[6].descriptors[0] == "soft gradients"  # the first image of oil
    assert steep.pi[0, wash] == steep.pi[0].max() > 1.5 * steep.pi[0, :wash].max()
    torch.testing.assert_close(even.pi[:, wash], torch.full((6,), 1 / 3, dtype=torch.float64))
    assert not steep.pi[:, oil].any()


def test_a_prompt_without_style_part_is_all_object_and_takes_its_groups_style() -> None:
    text = text_problem.text_problem()
    p = of(dataclasses.replace(text, parsed=(None,) * COUNT), "anchor:awss", beta=5.0)
    made = anchor(p)
    assert isinstance(made, OtherStyle)
    part = entries(p)
    for i, prompt in zip(part.indices.tolist(), made.prompts(part), strict=True):
        assert prompt.startswith(text.prompts[i] + ", artistic style featuring ")
    p_s = torch.stack([text_problem.embed(STYLES[name]).double().mean(0) for name in made.names])
    p_s /= p_s.norm(dim=1, keepdim=True)
    score = 5.0 * p_s[[0, 2, 3]] @ p_s[1]  # names are sorted: ink, oil, pixel, wash
    expected = 0.7 * torch.softmax(score, dim=0) + 0.1
    torch.testing.assert_close(made.pi[:, [0, 2, 3]], expected.expand(6, -1))
    plain = anchor(dataclasses.replace(p, spec=dataclasses.replace(p.spec, operator="anchor:style-removed")))
    x_t, prompts = plain.latents(part), plain.prompts(part)
    assert torch.equal(x_t, part.x_t)
    assert prompts == [text.prompts[i] for i in part.indices.tolist()]  # there is nothing to take away


def test_style_removed_leaves_the_object() -> None:
    p = problem("anchor:style-removed")
    part = entries(p)
    assert p.text is not None
    x_t, prompts = anchor(p).latents(part), anchor(p).prompts(part)
    assert torch.equal(x_t, part.x_t)
    assert prompts == [OBJECT[p.text.prompts[i]] for i in part.indices.tolist()]


def test_matched_sees_a_partner_of_the_same_content() -> None:
    p = problem("anchor:matched")
    made = anchor(p)
    assert isinstance(made, Matched)
    assert (made.unmatched, made.fallback) == (0, None)
    assert p.text is not None
    assert p.cond is not None
    styles: Counter[str] = Counter()
    for step in range(12):
        part = entries(p, step)
        x_t, prompts = made.latents(part), made.prompts(part)
        for j, (i, t) in enumerate(zip(part.indices.tolist(), part.t, strict=True)):
            partner = p.text.prompts.index(prompts[j])
            assert partner != i
            assert p.text.content[partner] == p.text.content[i]
            assert not p.forget[partner]
            expected = add_noise(p.schedule, p.images[partner][None], part.noise[j][None], t[None])[0]
            torch.testing.assert_close(x_t[j], expected)
            styles[GROUPS[partner // 6]] += 1
    assert set(styles) == set(GROUPS) - {"oil"}


def test_matched_falls_back_where_there_is_no_partner() -> None:
    text = text_problem.text_problem()
    lonely = tuple(f"only {i}" if i in (6, 8) else name for i, name in enumerate(text.content))
    p = of(dataclasses.replace(text, content=lonely), "anchor:matched")
    made, other = anchor(p), anchor(of(text, "anchor:awss"))
    assert isinstance(made, Matched)
    assert isinstance(other, OtherStyle)
    assert made.unmatched == 2
    alone = []
    for step in range(4):
        part = entries(p, step)
        x_t, prompts = made.latents(part), made.prompts(part)
        expected = other.prompts(part)
        for j, i in enumerate(part.indices.tolist()):
            fallen = torch.equal(x_t[j], part.x_t[j])
            assert fallen == (i in (6, 8))
            assert not fallen or prompts[j] == expected[j]
            alone.append(fallen)
    assert set(alone) == {True, False}


def test_a_random_set_may_take_any_style() -> None:
    text = dataclasses.replace(text_problem.text_problem(), removed=frozenset())
    p = of(text, "anchor:uniform")
    p = dataclasses.replace(p, forget=torch.arange(COUNT) % 2 == 0)
    made = anchor(p)
    assert isinstance(made, OtherStyle)
    assert torch.equal(made.pi, torch.full((COUNT // 2, 4), 0.25, dtype=torch.float64))


def outside(p: Problem, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a network is shown at a step, the loss's gradient in its answers, which rows are kept."""
    seen: list[Tensor] = []

    class Recorder:
        schedule, device = p.schedule, torch.device("cpu")

        def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            assert cond is not None
            seen.extend((x_t, cond, torch.tanh(x_t).requires_grad_()))
            return seen[2]

    stream = text_problem.stream(p)
    loss = step_loss(Recorder(), None, anchor(p), p, stream, step)
    [gradient] = torch.autograd.grad(loss, seen[2])
    return seen[0], seen[1], gradient, ~p.forget[stream.at(step).indices]


@pytest.mark.parametrize("operator", ANCHORS)
def test_entries_outside_the_group_are_treated_alike_whatever_goes(operator: str) -> None:
    shared = bank()
    ps = [of(text_problem.text_problem(shared, [name]), operator) for name in ("ink", "oil", "pixel")]
    ps = [dataclasses.replace(p, dropout=0.4) for p in ps]
    for step in range(3):
        runs = [outside(p, step) for p in ps]
        kept = torch.stack([run[3] for run in runs]).all(0)
        assert kept.any()
        for one, other in itertools.pairwise(runs):
            for a, b in zip(one[:3], other[:3], strict=True):
                assert torch.equal(a[kept], b[kept])


@pytest.mark.parametrize(("operator", "changes"), [("anchor:uniform", {}), ("anchor:awss", {"eta": 0.0})])
def test_an_entrys_anchor_changes_only_where_its_style_goes_too(
    operator: str, changes: dict[str, float]
) -> None:
    one, both = (
        of(text_problem.text_problem(removed=removed), operator, **changes)
        for removed in (["oil"], ["oil", "wash"])
    )
    same = moved = 0
    for step in range(12):
        alone, joint = drawn(one, step), drawn(both, step)
        for row, prompt in alone.items():
            words = split(prompt)[1]
            if "wash" in styles_of(words):
                moved += 1
                assert joint[row] != prompt
            else:
                same += 1
                assert joint[row] == prompt
    assert same > 5
    assert moved > 5


def test_other_seeds_and_steps_draw_other_anchors() -> None:
    prompts = [tuple(drawn(problem("anchor:awss", seed=seed), 0).values()) for seed in (0, 0, 1)]
    assert prompts[0] == prompts[1] != prompts[2]


def test_the_number_of_descriptors_is_a_setting() -> None:
    words = [split(prompt)[1] for prompt in drawn(problem("anchor:uniform", anchor_descriptors=1)).values()]
    assert {len(w) for w in words} == {1}


def test_a_groups_entries_keep_their_prompt_where_others_are_shown_without() -> None:
    p = dataclasses.replace(problem("anchor:awss"), dropout=1.0)
    _, cond, _, kept = outside(p, 0)
    assert p.cond is not None
    assert not cond[kept].any()
    own = p.cond[text_problem.stream(p).at(0).indices]
    assert torch.equal(cond[~kept], own[~kept])


@pytest.mark.parametrize("operator", ANCHORS)
def test_without_prompts_or_full_model_it_is_refused(operator: str) -> None:
    p = problem(operator)
    with pytest.raises(ValueError, match="full model"):
        make(p)
    for without in ({"text": None}, {"cond": None}):
        with pytest.raises(ValueError, match="prompt"):
            make(dataclasses.replace(p, **without), teacher(p))


def lacking(**changes: object) -> TextProblem:
    return dataclasses.replace(text_problem.text_problem(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lacking(styles=dict.fromkeys(GROUPS, ())), "descriptors"),
        (lacking(styles={"oil": ("a",), "ink": ()}), "no style is left"),
        (text_problem.text_problem(removed=GROUPS), "no style is left"),
    ],
)
def test_no_style_to_redirect_to(text: TextProblem, said: str) -> None:
    """Said by the catalog before any work, and by an operator that is built all the same."""
    p = of(text, "anchor:awss")
    with pytest.raises(RecipeError, match=said) as caught:
        catalog.check(p.spec, traits({}, text=True), styles=text.styles, removed=text.removed)
    assert "style-removed" in caught.value.fix
    with pytest.raises(RecipeError, match=said):
        make(p, teacher(p))
    for other in ("anchor:style-removed", "anchor:matched"):
        spec = dataclasses.replace(p.spec, operator=other)
        catalog.check(spec, traits({}, text=True), styles=text.styles, removed=text.removed)


def test_a_style_without_descriptors_lends_none() -> None:
    text = lacking(styles={**STYLES, "pixel": ()})
    made = anchor(of(text, "anchor:uniform"))
    assert isinstance(made, OtherStyle)
    assert {name for name, share in zip(made.names, made.pi[0], strict=True) if share} == {"ink", "wash"}


def test_descriptors_of_a_prompt_that_names_none() -> None:
    """An object with an empty style part is taken for the average of its groups' styles."""
    parts = tuple(ParsedPrompt(p.object, ()) for p in text_problem.parsed())
    bare = anchor(of(lacking(parsed=parts), "anchor:awss"))
    given = anchor(problem("anchor:awss"))
    nowhere = of(lacking(parsed=parts, membership=torch.zeros(COUNT, 4, dtype=torch.bool)), "anchor:awss")
    none = anchor(dataclasses.replace(nowhere, forget=torch.arange(COUNT) < 6))
    assert isinstance(bare, OtherStyle)
    assert isinstance(given, OtherStyle)
    assert isinstance(none, OtherStyle)
    assert float(bare.pi[0].max()) > 0.35
    assert not torch.allclose(bare.pi, given.pi, atol=1e-3)
    torch.testing.assert_close(none.pi[:, [0, 2, 3]], torch.full((6, 3), 1 / 3, dtype=torch.float64))
