"""UncertainGCN and CoreGCN: a graph network tells labelled from unlabelled images (Caramalau et al., CVPR 2021).

The graph joins every image with every other by the cosine of their features. Its adjacency has rank D plus a
diagonal, so every product with it is exact in O(n·D), and A·X, which all training steps share, is formed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alkit.models.divergence import of_training, require_finite
from alkit.models.graph import GCN
from alkit.models.steps import Draws, Row, StepLoop, recorder_for
from alkit.strategies.base import Pool, Query, Strategy, register, top_query
from alkit.strategies.coreset import ROWS, farthest_first, finite, unit_rows

CHUNK = 1 << 21  # numbers of a temporary matrix on the CPU: few enough calls that threads wait little for each other


@dataclass(frozen=True)
class SimilarityGraph:
    """A = offdiag(X·Xᵀ)·diag(1/c) + I by its factors: unit rows X (n, D), column sums c = X(Xᵀ1) − 1.

    `inverse` is 1/c (n,), and 0 where a node has no neighbours to be summed.
    """

    x: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, *features: Tensor) -> SimilarityGraph:
        """The graph of all rows of `features` (·, D), which are L2-normalised here."""
        x = unit_rows(*features)
        dtype = x.dtype
        total = x.new_zeros(x.shape[1], dtype=torch.float64)
        for rows in x.split(ROWS):  # at once the sum would make a copy of x in its own type
            total += rows.sum(0, dtype=torch.float64)
        sums = torch.cat([part.double() @ total - 1 for part in x.split(ROWS)]) if len(x) else x.new_zeros(0)
        alone = sums.abs() <= 4 * torch.finfo(dtype).eps * len(x)
        return cls(x, torch.where(alone, 0.0, 1 / sums).to(dtype))

    def product(self, h: Tensor) -> Tensor:
        """A·H (n, k) for H (n, k)."""
        scaled = h * self.inverse[:, None]
        return self.x @ (self.x.T @ scaled) - scaled + h

    def smoothed(self) -> Tensor:
        """A·X (n, D)."""
        weighted = torch.zeros(self.x.shape[1], self.x.shape[1], dtype=self.x.dtype, device=self.x.device)
        for rows, inverse in zip(self.x.split(ROWS), self.inverse.split(ROWS), strict=True):
            weighted.addmm_(rows.T, rows * inverse[:, None])
        result = self.x @ weighted
        for out, rows, inverse in zip(
            result.split(ROWS), self.x.split(ROWS), self.inverse.split(ROWS), strict=True
        ):  # in place: two copies of the features in all
            out.addcmul_(rows, (1 - inverse)[:, None])
        return result


def similarity_product(features: Tensor, h: Tensor) -> Tensor:
    """A·H (n, k) for `features` (n, D) and H (n, k), without forming the n×n adjacency A.

    With X the L2-normalised features: A = X·Xᵀ − I, each column divided by its sum, plus I. A column whose sum is 0
    (a node without neighbours) keeps only the I. Time O(n·D·k), memory O(n·(D + k)).
    Raises `ValueError` for features that are not finite. Caramalau et al., CVPR 2021.
    """
    return SimilarityGraph.of(features).product(h.to(features.device))


@torch.no_grad()
def train_gcn(
    graph: SimilarityGraph,
    labelled_mask: Tensor,
    generator: torch.Generator,
    *,
    hidden: int = 128,
    dropout: float = 0.3,
    steps: int = 200,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
    weight: float = 1.2,
    unlabelled_mask: Tensor | None = None,
) -> tuple[GCN, Tensor]:
    """A GCN trained by full-batch Adam to tell `labelled_mask` (n,) from the rest, and A·X (n, D).

    `weight` is λ of the unlabelled term. Nodes outside both masks count in neither term. All randomness (weights,
    dropout) is from `generator`, which is on the CPU.
    """
    x = graph.x
    gcn = GCN(x.shape[1], hidden, dropout, generator).to(x.device, x.dtype)
    source = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    smoothed = graph.smoothed()
    labelled = labelled_mask.to(x.device)
    unlabelled = ~labelled if unlabelled_mask is None else unlabelled_mask.to(x.device)
    cost = labelled / labelled.sum().clamp_min(1) + weight * unlabelled / unlabelled.sum().clamp_min(1)
    cost, target = cost.to(x.dtype), labelled.to(x.dtype)
    on_cuda = x.device.type == "cuda"
    optimizer = torch.optim.Adam(
        gcn.parameters(), lr, weight_decay=weight_decay, fused=on_cuda or x.device.type == "cpu", capturable=on_cuda
    )
    h = torch.empty(len(x), hidden, dtype=x.dtype, device=x.device)
    nothing = x.new_zeros(())

    def step(row: Row, images: Tensor | None) -> Tensor:
        gradients = step_gradients(gcn, graph, smoothed, target, cost, h, source)
        for parameter, gradient in zip(gcn.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return nothing

    loop = StepLoop(x.device, recorder_for(x.device, [source]))
    loop.run(step, Draws([1] * steps))
    loop.forget()
    return gcn, smoothed


def step_gradients(
    gcn: GCN,
    graph: SimilarityGraph,
    smoothed: Tensor,
    target: Tensor,
    cost: Tensor,
    h: Tensor,
    source: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss's gradients with respect to W1, b1, W2 and b2, for one draw of dropout from `source`.

    The loss is −mean log s[labelled] − λ·mean log(1 − s[unlabelled]), s = sigmoid(logits); it is nowhere formed, so
    that a saturated s costs nothing. Written out because each pass then works on rows that stay in cache, and keeps
    only `h` (n, hidden), its scratch. `target` (n,) is 1 for a labelled node and 0 for others, `cost` (n,) each node's
    weight in the loss.
    """
    w1, b1, b2 = gcn.weight1, gcn.bias1, gcn.bias2
    w2 = gcn.weight2[:, 0] / (1 - gcn.dropout)
    x, inverse = graph.x, graph.inverse
    size = max(CHUNK // max(x.shape[1], 1), 1) if x.device.type == "cpu" else max(len(x), 1)
    u, error = torch.empty_like(inverse), torch.empty_like(inverse)
    whole = (x, smoothed, h, inverse, 1 - inverse, u, error, target, cost)
    parts = list(zip(*(tensor.split(size) for tensor in whole), strict=True))
    gathered, returned = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    for x_, smoothed_, h_, inverse_, _, u_, *_ in parts:  # h, u = h·W2, and Xᵀ(u/c)
        torch.mm(smoothed_, w1, out=h_).add_(b1).relu_().mul_(dropout_mask(h_, gcn.dropout, source))
        torch.mv(h_, w2, out=u_)
        gathered.addmv_(x_.T, u_ * inverse_)
    for x_, _, _, _, rest_, u_, error_, target_, cost_ in parts[::-1]:  # logits A·u + b2, their gradient, and Xᵀ of it
        torch.mv(x_, gathered, out=error_).addcmul_(u_, rest_).add_(b2).sigmoid_().sub_(target_).mul_(cost_)
        returned.addmv_(x_.T, error_)
    g1, gb, g2 = w1.new_zeros(w1.shape[::-1]), torch.zeros_like(b1), torch.zeros_like(w2)
    for x_, smoothed_, h_, inverse_, rest_, _, error_, *_ in parts:  # back through A, then through both layers
        back = (x_ @ returned).mul_(inverse_).addcmul_(error_, rest_)
        g2.addmv_(h_.T, back)
        gb.addmv_(h_.sign_().T, back)  # 1 where the ReLU was open and dropout let through
        g1.addmm_(h_.mul_(back[:, None]).T, smoothed_)
    g1 = (g1.T * w2).contiguous()  # the fused Adam walks memory, whatever the strides
    return g1, gb * w2, g2[:, None] / (1 - gcn.dropout), error.sum()[None]


def dropout_mask(like: Tensor, rate: float, source: torch.Generator) -> Tensor:
    """A mask of the shape (n, k) and type of `like` that is 0 with probability `rate` (at most 255/256) and else 1.

    Random bits are what a mask costs, so a number has 8 of them, and each row rounds `rate` to 8 bits at random.
    """
    count = like.numel()
    bits = torch.empty(-(-count // 8), dtype=torch.int64, device=like.device)
    bits.random_(-(2**63), None, generator=source)
    drawn = bits.view(torch.int8)[:count].view(like.shape)
    level = torch.rand(len(like), 1, device=like.device, generator=source).add_(256 * rate - 128).floor_()
    return torch.ge(drawn, level.clamp_max_(127).to(torch.int8), out=torch.empty_like(like))


@torch.no_grad()
def gcn_scores(features: Tensor, labelled_mask: Tensor, generator: torch.Generator, **hyper: float) -> Tensor:
    """How labelled each node looks, (n,) float64 in 0..1, for `features` (n, D) and the bool `labelled_mask` (n,).

    A two-layer graph network is trained on the similarity graph of the features (see `similarity_product`).
    `hyper`: hidden=128, dropout=0.3, steps=200, lr=1e-3, weight_decay=5e-4, weight=1.2 (λ of the unlabelled term),
    unlabelled_mask=None (by default the nodes that are not labelled). Time and memory are linear in n.
    Raises `ValueError` for features that are not finite. Caramalau et al., CVPR 2021.
    """
    graph = SimilarityGraph.of(features)
    gcn, smoothed = train_gcn(graph, labelled_mask, generator, **hyper)  # type: ignore[arg-type]
    return _scores(gcn, graph, smoothed)


def _scores(gcn: GCN, graph: SimilarityGraph, smoothed: Tensor) -> Tensor:
    logits: Tensor = gcn.eval()(smoothed, graph.product)
    return logits.double().sigmoid()


@register("uncertain_gcn", "core_gcn")
class GraphSelection(Strategy):
    """UncertainGCN: the candidates whose score is nearest the margin. CoreGCN: k-center greedy on h, from L.

    Nodes are the candidates, then the labelled images in the order bought. Under the quirk `gcn_assumes_equal_init`
    only the first cycle × budget labelled nodes count as labelled or as centers, and those after them in neither term.
    Under `core_gcn_backbone_features` CoreGCN covers the normalised features of the backbone.
    """

    @torch.no_grad()
    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        e, count = self.experiment, len(pool.candidates)
        graph = SimilarityGraph.of(pool.features, pool.labelled_features)
        place = torch.arange(len(graph.x))
        known = e.budget * pool.cycle if e.quirk("gcn_assumes_equal_init") else len(graph.x)
        uncertain = e.row.strategy == "uncertain_gcn"
        with of_training("gcn_lr", e.gcn_lr, cycle=pool.cycle, after=f"step {e.gcn_steps}"):
            gcn, smoothed = train_gcn(
                graph, (place >= count) & (place < count + known), generator,
                hidden=e.gcn_hidden, dropout=e.gcn_dropout, steps=e.gcn_steps, lr=e.gcn_lr,
                weight_decay=e.gcn_weight_decay, weight=e.gcn_lambda, unlabelled_mask=place < count,
            )  # fmt: skip
            seen = _scores(gcn, graph, smoothed) if uncertain else gcn.hidden(smoothed)
            require_finite(seen, "an output of the graph network")
        if uncertain:
            return top_query(pool, -(seen[:count] - e.gcn_margin).abs(), budget)
        h = graph.x if e.quirk("core_gcn_backbone_features") else seen
        del graph, smoothed, seen  # two copies of the features make room for the cover
        positions, distances = farthest_first(h[:count], h[count : count + known], budget)
        return Query(pool.candidates[positions.to(pool.candidates.device)], finite(distances))
