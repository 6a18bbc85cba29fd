"""A randomised field that does nothing is refused by stepping, and none that does something is."""

from pathlib import Path

import pytest

from metarl.envs.dynamics import (
    LITERATURE,
    Change,
    DynamicsFamily,
    ForwardReward,
    Randomization,
    Range,
    dynamics_family,
    dynamics_names,
)
from metarl.envs.mujoco.robots import Robot

MODEL = """
<mujoco>
  <option timestep="0.01"><flag contact="{contact}"/></option>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1"/>
    <body name="cart" pos="0 0 0.1">
      <joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0 1"/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="1"/>
      <geom name="ghost" type="sphere" size="0.05" mass="0.1" contype="0" conaffinity="0"/>
      <geom name="shy" type="sphere" size="0.05" mass="0.1" contype="0" conaffinity="2"/>
      <geom name="aloft" type="sphere" pos="0 0 3" size="0.05" mass="0.1"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="-3 3" ctrllimited="true"/></actuator>
</mujoco>
"""


def cart(folder: Path, *ranges: Range, contact: str = "enable", **changes: object) -> DynamicsFamily:
    path = folder / "cart.xml"
    path.write_text(MODEL.format(contact=contact))
    robot = Robot("cart", str(path), 2, 1, 0.0, "uniform")
    change = changes.pop("change", None)
    randomization = Randomization(ranges, change)  # type: ignore[arg-type]
    return DynamicsFamily("cart", robot, randomization, ForwardReward(), **changes)  # type: ignore[arg-type]


FRICTION = Range("friction", ("box",), 0.1, 10.0)
MASS = Range("mass", ("cart",), 0.5, 2.0)


def test_friction_without_contacts_is_refused(tmp_path: Path) -> None:
    cart(tmp_path, FRICTION).make_env(1).close()
    said = "^cart: field 'friction' of 'box' does nothing: its lowest and its highest value lead"
    with pytest.raises(ValueError, match=said):
        cart(tmp_path, FRICTION, contact="disable").make_env(1)


@pytest.mark.parametrize(
    ("r", "label"),
    [
        (Range("friction", ("box", "ghost"), 0.1, 10.0), "'friction' of 'ghost'"),
        (Range("friction", ("box", "shy"), 0.1, 10.0), "'friction' of 'shy'"),  # no other's type meets its mask
        (Range("rolling_friction", ("box",), 0.1, 0.5), "'rolling_friction' of 'box'"),  # its contacts have none
        (Range("inertia_y", ("cart",), 0.5, 2.0), "'inertia_y' of 'cart'"),  # it does not turn
        (Range("gravity_y", (), -1.0, 1.0), "'gravity_y'"),
        (Range("force_limit", ("push",), 5.0, 9.0, mode="absolute"), "'force_limit' of 'push'"),  # never reached
    ],
)
def test_what_does_nothing_is_named_with_its_target(r: Range, label: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^cart: field {label} does nothing"):
        cart(tmp_path, MASS, r).make_env(1)


def test_a_change_that_does_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="field 'gravity_y' does nothing"):
        cart(tmp_path, MASS, change=Change((Range("gravity_y", (), -1.0, 1.0),), 5, 9)).make_env(1)


def test_a_payload_moves_where_there_is_one(tmp_path: Path) -> None:
    carried = (Range("payload", ("cart",), 0.0, 1.0), Range("gravity", (), 0.5, 1.5))
    cart(tmp_path, *carried).make_env(1).close()


def test_what_could_touch_and_never_did_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="cart: field 'friction' of 'aloft' showed no effect: it touched"):
        cart(tmp_path, Range("friction", ("aloft",), 0.1, 10.0)).make_env(1)


def test_the_literatures_physics_are_left_as_they_are(tmp_path: Path) -> None:
    cart(tmp_path, FRICTION, contact="disable", physics=LITERATURE).make_env(1).close()


@pytest.mark.parametrize("name", dynamics_names())
def test_all_named_families_pass(name: str) -> None:
    dynamics_family(name).check_effects()
