"""An interpreter on a committee: each member's map against its own goal, and the mean of the members' losses."""

import torch

from tiny_attacks import a_goal
from tiny_networks import classifier, images
from underfire.core.losses import map_distance
from underfire.interpreters import CAM
from underfire.interpreters.jointly import Jointly
from underfire.models.committee import together


def test_losses_are_the_means_of_the_members() -> None:
    members, x = [classifier("resnet"), classifier("densenet")], images(3)
    goal, joint, committee = a_goal(members[0], CAM(), x), Jointly(CAM()), together(members)
    wanted = [CAM().explain(each, x, goal.target.roll(1), goal.key) for each in members]

    def losses(read_by: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in read_by]

    leaf = x.clone().requires_grad_()
    belief = joint.begin(committee, leaf, goal.target, goal.key)
    read = joint.read(committee, joint.advance(committee, belief, leaf, goal.target), leaf, goal.target)
    assert read.maps.shape == (3, 1, 8, 4)
    together_loss = [-read.log_prob, map_distance(read.maps, torch.cat(wanted, 1))]
    of_each = [CAM().read(each, CAM().begin(each, leaf, goal.target, goal.key), leaf, goal.target) for each in members]
    prediction = torch.stack([-each.log_prob for each in of_each]).mean(0)
    maps = torch.stack([map_distance(each.maps, m) for each, m in zip(of_each, wanted, strict=True)]).mean(0)
    for ours, expected in zip(losses(together_loss), losses([prediction, maps]), strict=True):
        torch.testing.assert_close(ours, expected)
    deployed = joint.explain(committee, x, goal.target, goal.key)
    own = torch.cat([CAM().explain(each, x, goal.target, goal.key) for each in members], 1)
    torch.testing.assert_close(deployed, own)
    assert (joint.name, joint.draws) == ("cam", False)
