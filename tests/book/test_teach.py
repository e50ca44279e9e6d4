"""The teaching pages: each chapter has one, whole, and what they and the exam answers say is so."""

import re

import pytest
import torch

import tutorial_lib as tl
from tests.built import ROOT, chapters, toc_pages
from tools.teacher import exam_answers

FOLDER = ROOT / "book/teach"
ANSWERS = exam_answers((FOLDER / "exam_answers.md").read_text("utf-8"))
PAGES = [p for p in chapters() if (FOLDER / f"{p.stem[3:]}.md").exists()]
PARTS = ("**Goal.**", "**The one figure.**", "**The one slider.**", "## On the board")
PARTS += ("## Misconceptions", "## 45 minutes", "## A vote", "## Exam questions")


def double(*values):
    return torch.tensor([values], dtype=torch.float64)


def page_of(chapter) -> str:
    return (FOLDER / f"{chapter.stem[3:]}.md").read_text("utf-8")


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def numbered(text: str) -> int:
    return len(re.findall(r"^\d+\. ", text, re.MULTILINE))


def test_the_chapters_of_the_book_have_a_page_each():
    assert len(PAGES) >= 11  # one may be left out; a chapter of one's own has none
    assert {f"book/teach/{p.stem[3:]}" for p in PAGES} <= {*toc_pages()}


@pytest.mark.parametrize("chapter", PAGES, ids=lambda page: page.stem)
def test_a_page_is_whole_and_its_minutes_add_up(chapter):
    page = page_of(chapter)
    places = [page.find(part) for part in PARTS]
    assert places == sorted(places) and places[0] > 0
    assert re.search(r"\{ref\}`chap-\w+`", page)
    assert numbered(section(page, "On the board")) == 10
    minutes = re.findall(r"^\| (\d+) \|", section(page, "45 minutes"), re.MULTILINE)
    assert sum(map(int, minutes)) == 45
    vote = section(page, "A vote")
    assert len(re.findall(r"^\| ", vote, re.MULTILINE)) == 4 and "| **" in vote
    assert 3 <= numbered(section(page, "Exam questions")) <= 5


@pytest.mark.parametrize("chapter", PAGES, ids=lambda page: page.stem)
def test_every_exam_question_has_an_answer_and_the_page_has_none(chapter):
    questions = section(page_of(chapter), "Exam questions")
    assert len(ANSWERS[chapter.stem]) == numbered(questions)
    assert not any(answer[:60] in page_of(chapter) for answer in ANSWERS[chapter.stem])


def test_the_minutes_of_the_single_lecture_add_up():
    page = (FOLDER / "plans.md").read_text("utf-8")
    minutes = re.findall(r"^\| (\d+) \|", section(page, "One lecture (90 minutes)"), re.MULTILINE)
    assert sum(map(int, minutes)) == 90


# From here on: the numbers of the exam answers and of the boards, computed.


def test_the_answers_on_contributions():
    def f(z):
        return (z[:, 0] ** 2 + 3 * z[:, 1])[:, None]

    assert tl.gradient_x_input(f, double(2, 1), 0).tolist() == [[8, 3]]
    assert float(f(double(2, 1))) == 7

    def kink(z):
        return torch.relu(2 * z - 3)

    assert [float(tl.gradient_x_input(kink, double(v), 0)) for v in (4, 1)] == [8, 0]
    assert float(kink(double(4))) - 8 == -3


def test_the_answers_on_integrated_gradients():
    def f(z):
        return (z[:, 0] ** 2 * z[:, 1])[:, None]

    found = tl.integrated_gradients(f, double(1, 2), 0, steps=4, rule="gauss-legendre")
    assert torch.allclose(found, double(4 / 3, 2 / 3), rtol=1e-12)
    square = dict(model=lambda z: z**2, x=double(1), target=0)
    rules = {"right": (4, 1.25), "midpoint": (1, 1.0)}
    for rule, (steps, wanted) in rules.items():
        found = tl.integrated_gradients(**square, steps=steps, rule=rule)
        assert abs(float(found) - wanted) < 1e-12


def test_the_answers_on_reliability():
    def reliability(r, n, more):
        """From the correlation r of two maps of n draws to that of maps of `more`."""
        return r / (r + (1 - r) * n / more)

    assert abs(reliability(0.25, 10, 40) - 0.57) < 0.005
    assert abs(reliability(0.25, 10, 270) - 0.9) < 1e-12
    assert reliability(0.5, 100, 300) == 0.75
    assert abs(reliability(0.32, 150, 600) - 0.65) < 0.005


def test_the_answers_on_the_two_areas_and_the_search():
    def area(row):
        """AUTVC of eight pixels, as on the board."""
        row, rates = torch.tensor(row, dtype=torch.float64), []
        for _ in range(3):
            rates.append(float(row.diff().abs().sum()) / len(row))
            row = row.view(-1, 2).mean(1)
        return (rates[0] + 4 * rates[1] + rates[2]) / 3

    assert abs(area([0, 0, 1, 1, 0, 0, 1, 1]) - 1.13) < 0.006
    assert abs(area([0, 1, 0, 1, 0, 0, 0, 0]) - 0.42) < 0.004
    at, step, places = 0.5, 0.1, []
    for _ in range(4):
        up, down = at + step, abs(at - step)
        new = up if abs(up - 0.4) <= abs(at - 0.4) else down
        step *= 0.9 if abs(new - 0.4) > abs(at - 0.4) + 1e-12 else 1
        at = new
        places.append(round(at, 4))
    assert places == [0.4, 0.3, 0.39, 0.3]


def test_the_answers_on_leaving_the_range():
    normal = torch.distributions.Normal(0, 1)
    bounds = (torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    assert abs(float(tl.adaptive_sigma(double(0.2), bounds, confidence=0.95)) - 0.089) < 5e-4
    assert abs(float(normal.cdf(torch.tensor(-1.0))) - 0.16) < 0.002
    assert abs(0.99**1000 - 4e-5) < 0.5e-5
    outside = 1 - float(normal.cdf(torch.tensor(0.0)))
    assert -2 * outside == -1


def test_the_answers_on_deeplift_and_its_wirings():
    from torch import nn

    class F(nn.Module):
        def forward(self, z):
            r = torch.relu(z)
            return torch.relu(r[:, :1] - 1 - r[:, 1:])

    class G(nn.Module):
        def forward(self, z):
            return torch.relu(torch.relu(z[:, :1] - 1) - torch.relu(z[:, 1:]))

    wanted = {F: (1.5, -0.5), G: (2.0, -1.0)}
    for network, contributions in wanted.items():
        found = tl.deeplift(network().eval(), double(3, 1), 0, baseline=double(0, 0))
        assert torch.allclose(found, double(*contributions), rtol=1e-9)
    relu = torch.relu(torch.tensor([4.0, -2.0, 3.0, -3.0])).tolist()
    assert (relu[0] - relu[1]) / 2 + (relu[2] - relu[3]) / 2 == 3.5


def test_the_answers_on_relevance():
    from torch import nn

    unit = nn.Linear(2, 1).double()
    with torch.no_grad():
        unit.weight.copy_(double(6, -2))
        unit.bias.fill_(1)
    network = nn.Sequential(unit).eval()
    for rule, wanted in {"epsilon": (6, -2), "alpha_beta": (6 / 7 * 5, 0)}.items():
        found = tl.lrp(network, double(1, 1), 0, rule=rule)  # the relevance is the score, 5
        assert torch.allclose(found, double(*wanted), rtol=1e-6, atol=1e-9)
    assert abs(6 / 7 * 10 - 8.6) < 0.03


def test_the_answers_on_grad_cam_and_measures():
    first, second = torch.tensor([[1.0, 3], [0, 0]]), torch.tensor([[0.0, 0], [2, 2]])
    score = 1 + 4 * first.mean() - 2 * second.mean()
    cells = 4 / 4 * first - 2 / 4 * second
    assert (float(score), float(cells.sum()), float(cells.clamp(min=0).sum())) == (3, 2, 4)
    assert abs(float(tl.metrics.gini(torch.tensor([[0.0, 0, 2, 2]]))) - 0.5) < 1e-6
    areas = {}
    for order in ((3, 2, 1), (1, 2, 3)):
        left = [1 - sum(order[:k]) / 6 for k in range(4)]
        areas[order] = sum(left) - (left[0] + left[-1]) / 2
    assert abs(areas[3, 2, 1] - 1.17) < 0.004 and abs(areas[1, 2, 3] - 1.83) < 0.004


def test_the_answers_and_the_board_on_pairs():
    def interval(a, b, t=4.303):
        d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
        half = t * float(d.std()) / len(d) ** 0.5
        return float(d.mean()) - half, float(d.mean()) + half

    low, high = interval([10, 20, 30], [9, 18, 30])
    assert abs(low + 1.48) < 0.006 and abs(high - 3.48) < 0.006
    low, high = interval([4, 6, 9], [3, 4, 8])
    assert abs(low - (1.33 - 1.43)) < 0.01 and abs(high - (1.33 + 1.43)) < 0.01
    spread = sum(torch.tensor(v).var() for v in ([4.0, 6, 9], [3.0, 4, 8]))
    assert abs(float(spread / 3) ** 0.5 - 2.11) < 0.005


def test_the_answers_on_speed():
    assert 10 / 4 == 2.5 and 10 / (5 + 0.5 * 10) == 1 and 1 / 0.5 == 2
    s = 6 / 2
    weight, constant = s * 2, s * (1 - 3) + 1
    assert (weight, constant) == (6, -5) and weight + constant == ((2 + 1) - 3) / 2 * 6 + 1
    assert abs((1 + 1 / 4) ** 0.5 - 1.12) < 0.003
