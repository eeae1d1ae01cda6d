import argparse
import dataclasses
import os
import re
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.arguments import crawl_options, dataset_options, list_source, parser
from pipelines.command.cli import UsageError
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions, Degradation
from pipelines.dataset.outcome import Outcome
from pipelines.lists.list_file import Source
from pipelines.lists.originals import Originals


def parse(*arguments: str) -> argparse.Namespace:
    options, rest = parser().parse_known_args([*arguments, "--output", "out"])
    assert not rest
    return options


def dataset(*arguments: str) -> DatasetOptions:
    return dataset_options(parse(*arguments))


def test_defaults_are_those_of_the_options() -> None:
    assert dataset() == DatasetOptions()
    assert crawl_options(parse(), 3) == CrawlOptions(crawlers=3)


def test_every_option_reaches_its_field() -> None:
    what = """--wnids n01440765,n01440764,n01440764 --limit 5 --seed -7 --num-shards 3
        --crop-size 96 --crops-per-image all --min-detail 1.5 --scales 4,2
        --crop-margin 0 --degradation bicubic --splits test=0.5,train=0.5
        --max-bytes 10 --robots ignore --allow-host b --allow-host a"""
    assert dataset(*what.split()) == DatasetOptions(
        wnids=("n01440764", "n01440765"),
        limit=5,
        seed=-7,
        num_shards=3,
        crop_size=96,
        crops_per_image="all",
        min_detail=1.5,
        crop_margin=0.0,
        scales=(2, 4),
        degradation=Degradation.BICUBIC,
        splits={"train": 0.5, "validation": 0.0, "test": 0.5},
        max_bytes=10,
        robots=False,
        allow_hosts=("a", "b"),
    )
    how = "--concurrency 7 --timeout 1.5 --requests-per-host 0.5 --user-agent me --proxy http://p:3"
    crawl = parse(*how.split())
    assert crawl_options(crawl, 2) == CrawlOptions(2, 7, 1.5, 0.5, "me", "http://p:3")


@pytest.mark.parametrize(
    ("given", "host"),
    [("LocalHost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("0::1", "::1")],
)
def test_allowed_hosts_are_named_as_in_urls(given: str, host: str) -> None:
    assert dataset("--allow-host", given).allow_hosts == (host,)


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ("--allow-host", host)
            for host in ("localhost:80", "127.0.0.0/8", "http://a", "", "::1/64")
        ),
        *(("--allow-host", host) for host in ("127.1", "2130706433", "bücher.de", "a b")),
        *(("--user-agent", f"a{character}b") for character in "\r\n\t\0\x7f"),
    ],
)
def test_what_would_never_hold_is_refused_by_name(arguments: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(arguments[1]))):
        parse(*arguments)


def test_wnids_come_from_a_file_or_a_long_list(tmp_path: Path) -> None:
    many = [f"n{number:08}" for number in range(500)]
    file = tmp_path / "wnids.txt"
    file.write_text("\n".join(many))
    assert dataset("--wnids", str(file)).wnids == tuple(many)
    assert dataset("--wnids", ",".join(many)).wnids == tuple(many)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--limit 0", "^--limit: must be a whole number of at least 1, not '0'"),
        ("--limit x", "whole number of at least 1, not 'x'"),
        ("--seed 1.5", "^--seed: must be a whole number .*, not '1.5'"),
        ("--seed 99999999999999999999", "99999999999999999999"),
        ("--num-shards -1", "of at least 1, not '-1'"),
        ("--crop-margin 0.5", "a number of at least 0 and below 0.5, not '0.5'"),
        ("--crop-margin nan", "below 0.5, not 'nan'"),
        ("--crop-margin -0.1", "at least 0 and below 0.5, not '-0.1'"),
        ("--scales 1", "whole numbers of at least 2, not '1'"),
        ("--scales two", "a list such as 2,3,4 of whole numbers .*, not 'two'"),
        ("--scales 201", "--crop-size 200 is less than a scale"),
        ("--crops-per-image 0", "must be a whole number of at least 1 or all, not 0"),
        ("--crops-per-image some", "must be a whole number of at least 1 or all, not 'some'"),
        ("--degradation bicubic --scales 2 --crop-size 1", "is less than a scale"),
        ("--degradation worse", "must be article, article-nearest or bicubic, not 'worse'"),
        ("--splits train=0.5", "must have parts that sum to 1, not 'train=0.5'"),
        ("--splits train=2,test=-1", "parts that sum to 1"),
        ("--splits train=nan", "parts that sum to 1"),
        ("--splits train", "must be of the form train=0.98"),
        ("--splits dev=1", "has 'dev', which is none of train"),
        ("--proxy socks://a", "http://HOST:PORT or https://HOST:PORT, not .socks://a."),
        ("--proxy http://u:p@a", "set PROXY_USER and PROXY_PASSWORD"),
        ("--timeout 0", "a number above 0, not '0'"),
        ("--timeout inf", "above 0, not 'inf'"),
        ("--requests-per-host nan", "above 0, not 'nan'"),
        ("--wnids none.txt", "'none.txt' is neither a file nor a WordNet id"),
        ("--wnids " + 99 * "n01440764," + "dog", "'dog' is neither a file nor a WordNet id"),
        ("--robots maybe", "must be obey or ignore, not 'maybe'"),
        ("--silence 0", "above 0, not '0'"),
    ],
)
def test_wrong_values_are_named(arguments: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataset_options(parse(*arguments.split()))


def test_a_crop_that_a_scale_does_not_divide_is_told(caplog: pytest.LogCaptureFixture) -> None:
    dataset()
    dataset("--degradation", "bicubic", "--crop-size", "192")
    assert not caplog.messages
    dataset("--degradation", "bicubic")
    assert "--crop-size 200 is no multiple of the scales 2,3,4" in caplog.text
    assert "--crop-size 192 or 204 suits" in caplog.text


def test_an_empty_wnids_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="neither a file nor a WordNet id"):
        dataset("--wnids", str(tmp_path / "empty"))


def test_the_output_is_required() -> None:
    with pytest.raises(UsageError, match="--output"):
        parser().parse_known_args(["--urls", "list"])


def test_options_cannot_be_shortened() -> None:
    _, rest = parser().parse_known_args(["--output", "out", "--crop", "96"])
    assert rest == ["--crop", "96"]


@pytest.mark.parametrize(
    ("mistyped", "near"),
    [("--crop-sise", "--crop-size"), ("--dry_run", "--dry-run"), ("--scale=2", "--scales")],
)
def test_a_mistyped_option_is_refused_with_the_nearest(mistyped: str, near: str) -> None:
    name = mistyped.partition("=")[0]
    with pytest.raises(UsageError, match=f"unknown option {name}: did you mean {near}[?]"):
        parser().parse_known_args([mistyped, "96"])


def test_no_option_of_beam_is_taken_for_a_mistyped_one() -> None:
    beam = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(beam)
    names = beam._option_string_actions.keys() - {"--runner", "--dry_run", "--user_agent"}
    assert len(names) > 100
    _, rest = parser().parse_known_args(["--output", "out", *sorted(names)])
    assert rest == sorted(names)


def test_the_source_is_a_list_or_a_folder() -> None:
    assert list_source(parse("--urls", "list.gz")) == Source("list.gz")
    assert list_source(parse("--images", "dir")) == Source("dir", is_folder=True)
    with pytest.raises(UsageError, match="exclude each other"):
        list_source(parse("--images", "dir", "--urls", "list"))
    with pytest.raises(UsageError, match=r"make: URLS=list.*copies are kept"):
        list_source(parse())


def test_an_earlier_build_is_a_source(tmp_path: Path) -> None:
    earlier, out = str(tmp_path / "earlier"), os.path.realpath("out")
    assert list_source(parse("--originals", f"{earlier}/")) == Originals(DatasetFolder(earlier))
    assert list_source(parse("--urls", "list", "--originals", "none")) == Source("list")
    retry = (Outcome.HOST_GIVEN_UP, Outcome.TIMED_OUT)
    given = parse("--retry", "timed_out,host_given_up")
    assert list_source(given) == Originals(DatasetFolder("out"), True, retry)
    given = parse("--originals", earlier, "--retry", "timed_out,host_given_up")
    assert list_source(given) == Originals(DatasetFolder(earlier), False, retry)
    given = parse("--originals", out, "--overwrite")
    assert list_source(given) == Originals(DatasetFolder("out"), True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--originals a --urls b", "--urls and --originals exclude each other"),
        ("--originals a --images b", "--images and --originals exclude each other"),
        ("--originals ./out", r"out is --originals and --output: use another --output, or --over"),
        ("--urls a --retry timed_out", "takes its lines from an earlier build"),
        ("--originals none --retry timed_out", "takes its lines from an earlier build"),
        ("--originals none", "--originals DIR is required"),
        ("--originals a --retry ok", "'ok' is none of dns_failed, "),
        ("--originals a --retry timed_out,", "'' is none of dns_failed, "),
    ],
)
def test_what_is_no_source_is_refused(arguments: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list_source(parse(*arguments.split()))


def test_a_retry_has_the_options_of_the_earlier_build() -> None:
    earlier = DatasetOptions(
        wnids=("n01440764",),
        limit=9,
        seed=3,
        num_shards=2,
        crop_size=96,
        crops_per_image=2,
        crop_margin=0.2,
        scales=(2,),
        degradation=Degradation.BICUBIC,
        splits={"train": 1.0, "validation": 0.0, "test": 0.0},
        max_bytes=5,
        robots=False,
        allow_hosts=("a.org",),
    )
    assert dataset_options(parse(), earlier) == earlier
    assert dataset_options(parse("--seed", "4"), earlier) == dataclasses.replace(earlier, seed=4)


def test_every_option_has_help() -> None:
    text = parser().format_help()
    assert all(action.help for action in parser()._actions)
    text = " ".join(text.split())
    for default in (
        "256",
        "20000000, with --images 200000000",
        "0.1",
        "article",
        "obey",
        "2,3,4",
        "one a core",
        "30",
    ):
        assert f"(default: {default})" in text
    assert "(default: train=0.98,validation=0.01,test=0.01)" in text
    for nothing in ("None", "()", "[]", "False", ""):
        assert f"default: {nothing})" not in text
