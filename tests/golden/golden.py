#!/usr/bin/env python3
"""Plays the command lines of steps.json and compares what is printed with expected.json (recorded from SPIRE).

    golden.py --bin target/debug                  our daemons, our commands
    golden.py --bin SPIRE --cli target/debug --spire daemons     our commands on SPIRE's daemons
    golden.py --bin target/debug --cli SPIRE --spire commands    SPIRE's commands on our daemons
    golden.py --bin A --record OUT.json           write down instead of comparing

known-differences.json names the steps that are meant to differ:

    "094 federation list none": {"reason": "...", "exit": 1, "stdout": "", "stderr": "..."}

`drop` names keys of our own in JSON, which are taken out before anything is compared. The fields given replace SPIRE's, everything else must still be SPIRE's, and the reason must stand in
docs/differences.md. It is a difference of our commands, unless `of` says "daemons"; the side that --spire names has none. `undo` is a command line that puts the state back to what SPIRE's would be; its `{id}` is what the
pattern `take` finds in the step's stdout. Prints "N passed, N failed" and exits 1 unless every step passed.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from blur import blur_json, blur_text
from playground import Playground

HERE = pathlib.Path(__file__).resolve().parent
DIFFERENCES = HERE.parent.parent / "docs" / "differences.md"
FIELDS = ("exit", "json", "stdout", "stderr")


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--bin", required=True, help="directory of spire-server and spire-agent to run")
    ask.add_argument("--cli", help="directory of the commands to play (default: --bin)")
    ask.add_argument("--spire", choices=("daemons", "commands"), help="this side is SPIRE's own")
    ask.add_argument("--steps", default=HERE / "steps.json")
    ask.add_argument("--expected", default=HERE / "expected.json")
    ask.add_argument("--known", default=HERE / "known-differences.json")
    ask.add_argument("--record", help="write the results to this file, compare nothing")
    ask.add_argument("--verbose", action="store_true", help="name the steps that pass, too")
    ask.add_argument("--keep", action="store_true", help="leave the scratch directory")
    opt = ask.parse_args()

    steps = [(f"{i:03d} {step['name']}", step) for i, step in enumerate(json.loads(pathlib.Path(opt.steps).read_text()))]
    known = {} if opt.record else json.loads(pathlib.Path(opt.known).read_text())
    if not opt.record:
        check_known(known, {name for name, _ in steps})
        known = {name: k for name, k in known.items() if k.get("of", "commands") != opt.spire}

    scratch = tempfile.mkdtemp(prefix="golden-", dir="/tmp")
    try:
        with Playground(scratch, pathlib.Path(opt.bin).resolve()) as ground:
            got = play(steps, ground, pathlib.Path(opt.cli or opt.bin).resolve(), known)
    finally:
        if opt.keep:
            print(f"left: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)

    if opt.record:
        pathlib.Path(opt.record).write_text(json.dumps(got, indent=1, ensure_ascii=False))
        return 0
    return compare(json.loads(pathlib.Path(opt.expected).read_text()), got, known, opt.verbose)


def check_known(known, names):
    """Each known difference names a step there is, and its reason stands in the book."""
    book = " ".join(DIFFERENCES.read_text().split())
    for name, difference in known.items():
        if name not in names:
            sys.exit(f"known-differences.json: no step is called {name!r}")
        if " ".join(difference["reason"].split()) not in book:
            sys.exit(f"known-differences.json: the reason of {name!r} is not in docs/differences.md")


def play(steps, ground, cli, known):
    words, results = dict(ground.words), {}
    for name, step in steps:
        for file, content in step.get("files", {}).items():
            content = content if isinstance(content, str) else json.dumps(content)
            (ground.work / file).write_text(fill(content, words))
        argv = ground.command(cli, [fill(a, words) for a in step["argv"]], step.get("verbs", 2))
        done = run_step(argv, step, ground.work)
        for word, pattern in step.get("capture", {}).items():
            if found := re.search(pattern, done.stdout):
                words[word] = found.group(1)
        results[name] = record(done, step, ground.dir)
        if undo := known.get(name, {}).get("undo"):
            taken = re.search(undo["take"], done.stdout)
            if not taken:
                sys.exit(f"{name}: nothing to undo in {done.stdout!r}")
            argv = [fill(a, words | {"id": taken.group(1)}) for a in undo["argv"]]
            subprocess.run(ground.command(cli, argv, 2), capture_output=True, check=True, timeout=60)
    return results


def run_step(argv, step, cwd):
    """Runs one command line, again while the state it waits for is not there yet."""
    for left in reversed(range(step.get("retry", 1))):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, input=step.get("stdin"), cwd=cwd)
        if left == 0 or (done.returncode == 0 and re.search(step.get("until", ""), done.stdout)):
            return done
        time.sleep(0.5)


def record(done, step, directory):
    result = {"argv": step["argv"], "exit": done.returncode}
    if done.stdout.lstrip()[:1] in ("{", "[") and "{" in done.stdout:
        try:
            result["json"] = blur_json(json.loads(done.stdout), directory)
        except ValueError:
            pass
    if "json" not in result:
        result["stdout"] = blur_text(done.stdout, directory)
    result["stderr"] = "<usage>" if step.get("usage") else blur_text(done.stderr, directory)
    return result


def compare(expected, got, known, verbose):
    passed = failed = 0
    for name, theirs in expected.items():
        ours, meant = got.get(name, {}), known.get(name, {})
        wanted = {f: theirs.get(f) for f in FIELDS}
        if "stdout" in meant or "json" in meant:
            wanted["stdout"] = wanted["json"] = None
        wanted |= {f: meant[f] for f in FIELDS if f in meant}
        for key in meant.get("drop", []):
            ours.get("json", {}).pop(key, None)
        wrong = [f for f in FIELDS if wanted[f] != ours.get(f)]
        if wrong:
            failed += 1
            print(f"FAIL {name}")
            for field in wrong:
                print(f"  {field}\n    expected {shown(wanted[field])}\n    got      {shown(ours.get(field))}")
        else:
            passed += 1
            if verbose or meant:
                print(f"ok   {name}" + (f" (known difference: {meant['reason']})" if meant else ""))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def fill(text, words):
    for word, value in words.items():
        text = text.replace("{" + word + "}", value)
    return text


def shown(value):
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
