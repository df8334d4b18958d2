"""torch.compile, torch.func and PyTorch's modules around whole pieces of user code, not around one function."""

import pytest
import torch
from torch import nn

from matinfo import Gram, effective_rank, mutual_information, tcr
from matinfo.layers import layerwise
from matinfo.losses import mmae_tcr_loss

torch.manual_seed(0)
X = torch.randn(12, 5, dtype=torch.float64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def loss_of(Z):
    return mmae_tcr_loss(Z) - effective_rank(Gram(Z, normalize=True), 2) / 4


def test_functional_call_gives_the_gradients_of_backward():
    net = network()
    parameters = dict(net.named_parameters())
    functional = torch.func.grad(lambda p: loss_of(torch.func.functional_call(net, p, (X,))))(
        {name: p.detach() for name, p in parameters.items()}
    )
    loss_of(net(X)).backward()
    for name, p in parameters.items():
        torch.testing.assert_close(functional[name], p.grad, rtol=1e-10, atol=1e-12)


def test_ensemble_of_models_is_measured_by_vmap():
    nets = [nn.Linear(5, 4).double() for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(nets)

    def measure(parameters):
        return effective_rank(Gram(torch.func.functional_call(nets[0], parameters, (X,))))

    expected = torch.stack([effective_rank(Gram(net(X))) for net in nets])
    torch.testing.assert_close(torch.func.vmap(measure)(stacked), expected, rtol=1e-10, atol=0)


def test_jacrev_of_several_quantities_equals_their_gradients():
    def quantities(Z):
        K, L = Gram(Z, normalize=True), Gram(Z[:, :2], normalize=True)
        return torch.stack([effective_rank(K), mutual_information(K, L), tcr(Z, 0.5)])

    jacobian = torch.func.jacrev(quantities)(X)
    Z = X.clone().requires_grad_()
    rows = [torch.autograd.grad(value, Z, retain_graph=True)[0] for value in quantities(Z)]
    torch.testing.assert_close(jacobian, torch.stack(rows), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_compiled_training_step_follows_the_eager_one():
    def train(compiled):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)

        def objective(x):
            return loss_of(net(x))

        if compiled:
            objective = torch.compile(objective, backend="aot_eager", fullgraph=True)
        values = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = objective(X)
            loss.backward()
            optimizer.step()
            values.append(loss.detach())
        return torch.stack(values)

    torch.compiler.reset()
    torch.testing.assert_close(train(compiled=True), train(compiled=False), rtol=1e-9, atol=1e-11)


def test_checkpointed_layers_have_the_same_gradient():
    net = network()

    def gradient(run):
        net.zero_grad()
        effective_rank(Gram(run(X))).backward()
        return net[0].weight.grad.clone()

    def checkpointed(x):
        return torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)

    torch.testing.assert_close(gradient(checkpointed), gradient(net), rtol=1e-12, atol=0)


def test_orthogonal_parametrization_keeps_all_directions():
    net = nn.utils.parametrizations.orthogonal(nn.Linear(5, 5, bias=False)).double()
    identity = torch.eye(5, dtype=torch.float64)
    assert effective_rank(Gram(net(identity))).item() == pytest.approx(5.0, rel=1e-12)


def test_layerwise_of_a_compiled_module_names_the_modules_inside():
    torch.compiler.reset()
    net = network()
    compiled = torch.compile(net, backend="eager")
    eager = layerwise(net, X)
    through = layerwise(compiled, X, layers="*")
    assert through.names == eager.names
    torch.testing.assert_close(through.entropy, eager.entropy, rtol=1e-10, atol=0)
