"""What a policy may write as a mask, and what it is told when it may not."""

import pytest

from holdfast.errors import ConfigurationError
from holdfast.exchange import Mask
from holdfast.masking.path import Wild, parse_path
from holdfast.masking.plan import compile_plan


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("$.data.*", ("data", Wild.CHILD)),
        ("$.data['tls.key']", ("data", "tls.key")),
        ('$.data["tls.key"]', ("data", "tls.key")),
        ("$['*']", ("*",)),
        ("$.spec.containers[*].env[0].value", ("spec", "containers", Wild.CHILD, "env", 0, "value")),
        ("$..password", (Wild.DEPTH, "password")),
        ("$.spec..auth.token", ("spec", Wild.DEPTH, "auth", "token")),
        ("$..[0]", (Wild.DEPTH, 0)),
        ("$.(a.b)", ("a", "b")),
    ],
)
def test_a_path_becomes_the_steps_from_the_root(path, steps):
    assert parse_path(path) == steps


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "it is not a JSONPath"),
        ("$.a[", "it is not a JSONPath"),
        ("$.a[?(@.b==1)]", "it is not a JSONPath that can be walked"),
        ("$.'open", "it is not a JSONPath"),
        ("$", "selects the whole object"),
        ("data.password", "must begin with $"),
        ("$.a.$.b", "operator that is not supported"),
        ("$.a[1:2]", "slices are not supported"),
        ("$.a[-1]", "counts from the start"),
        ("$.a[0,1]", "union is not supported"),
        ("$['a','b']", "union is not supported"),
        ("$.a|$.b", "operator that is not supported"),
        ("$.(a|b)", "operator that is not supported"),
        ("$.a.`parent`", "`parent` is not supported"),
        ("$.a.`this`", "`this` is not supported"),
        ("$.(a where b)", "`where` is not supported"),
        ("$.(a wherenot b)", "`wherenot` is not supported"),
    ],
)
def test_a_path_outside_the_subset_is_refused_with_mask_path_and_reason(path, reason):
    with pytest.raises(ConfigurationError) as refused:
        compile_plan((Mask("secret-values", fields=(path,)),))
    assert str(refused.value).startswith(f"mask secret-values: path {path!r}: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a", "é", "a" * 64, 'a"b', "a\n"])
def test_a_name_that_cannot_be_written_into_a_mask_is_refused(name):
    with pytest.raises(ConfigurationError, match="1 to 63 letters"):
        compile_plan((Mask(name, fields=("$.data.*",)),))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "it is not an RE2 pattern: missing )"),
        ("a)(b", "it is not an RE2 pattern"),
        (r"(a)\1", "it is not an RE2 pattern"),
        ("(?=a)", "it is not an RE2 pattern"),
        ("a*", "empty text"),
        ("", "empty text"),
        ("pässword", "expected ASCII"),
        (r"\Aab", "line by line"),
        (r"ab\z", "line by line"),
        (r"\\\Aab", "line by line"),
        (r"a\Cb", "line by line"),
        ("(?-m)^ab", "line by line"),
        ("(?i-sm:^ab)", "line by line"),
    ],
)
def test_a_pattern_that_cannot_be_kept_is_refused_with_mask_pattern_and_reason(pattern, reason):
    with pytest.raises(ConfigurationError) as refused:
        compile_plan((Mask("tokens", patterns=(pattern,)),))
    assert str(refused.value).startswith(f"mask tokens: pattern {pattern!r}: ")
    assert reason in str(refused.value)


def test_an_escaped_backslash_before_a_letter_is_no_anchor():
    assert compile_plan((Mask("paths", patterns=(r"C:\\Az+",)),)).text is not None


def test_nothing_to_mask_is_an_empty_plan():
    plan = compile_plan((Mask("nothing"),))
    assert plan.fields is None
    assert plan.text is None


def test_equal_masks_are_compiled_once():
    assert compile_plan((Mask("a", fields=("$.b",)),)) is compile_plan((Mask("a", fields=("$.b",)),))


def test_paths_that_combine_in_too_many_ways_are_refused():
    bombs = tuple(f"$..a{'.*' * 14}.b{number}" for number in range(2))
    with pytest.raises(ConfigurationError, match=r"masks bomb: .* too many ways"):
        compile_plan((Mask("bomb", fields=bombs),))
