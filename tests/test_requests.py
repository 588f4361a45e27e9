"""Requests that are wrong, over all runners and groups: each is one line that names key, value and remedy, and code 2.

The tables of `tests/test_contract.py` and `tests/test_prompt_files.py` hold others.
"""

import functools
import json
import os
import shlex
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawing import nothing_drawn
from launches import LIGHT, Launcher
from thinned import most

import harness
from harness.models.random import byte_tokenizer

ROOT = Path(__file__).parents[1]
R = ("study", "model=random", "prompts.n=2")
ABLATE = ("ablate_heads", *R[1:])
CACHE = ("cache_attention", *R[1:])
INLINE = ("prompts=inline", "prompts.text=['When Mary went']")
LLAMA = ("study", "model=random", *INLINE)
T5 = ("study", "model=random", "model.shape=t5", *INLINE)
WRITES = (*T5, "prompts.target=['to the store']")
LABELS = ("study", "model=random", "model.shape=bert_classifier", *INLINE)
MASKED = ("study", "model=random", "model.shape=bert", *INLINE)
PLANTED = ("study", "model=planted", "prompts=induction", "prompts.n=2", "prompts.length=18")

# --- what a model can be asked ----------------------------------------------------------------------------------

KINDS = [
    (T5, "prompts='When Mary went': prompt 0 has no token to predict: set what it should write: prompts.target=…"),
    ((*T5[:3], "prompts=ioi"), "prompts=ioi: it scores next tokens, and random is an encoder-decoder; give prompts=in"),
    ((*T5[:3], "prompts=induction"), "prompts=induction: it scores next tokens, and random is an encoder-decoder"),
    (
        (*T5[:3], "prompts=prose"),
        "prompts='Leek and barley soup (serves 4)\\n- 3 leek…': prompt 0 has no token to pred",
    ),
    ((*T5, "prompts.target=['']"), "prompts.target='': a prompt must have at least one token of text"),
    ((*T5, "prompts.target=[a,b]"), "prompts.target=['a', 'b']: give one for each of the 1 texts"),
    ((*T5, "prompts.target=[null]"), "prompts.target.0=None: input should be a valid string"),
    ((*T5, "prompts.generate=3", "prompts.answer=[' Mary']"), "prompts.generate=3: an answer is scored in place of w"),
    ((*WRITES, "heads=[L0H0]"), "heads=L0H0: of which stack? Write encoder.L0H0 or decoder.L0H0 or cross.L0H0"),
    (
        (*WRITES, "heads=[crss.L0H0]"),
        "heads=crss.L0H0: a head is written encoder.L5H1, its layer encoder.L5, its stack",
    ),
    (
        (*WRITES, "heads=[cross.L2H0]"),
        "heads=cross.L2H0: cross.L2H0 is outside the cross stack of random: it has layer",
    ),
    ((*WRITES, "sweep.kind=set", "sets={a: [cross], b: [L0]}"), "sets.b=L0: of which stack? Write encoder"),
    ((*WRITES, "cache.also=[z]", "cache.heads=[L0]"), "cache.heads=L0: of which stack? Write encoder.L0 or decoder.L0"),
    ((*WRITES, "show.heads=[L0H0]"), "show.heads=L0H0: of which stack?"),
    (
        (*WRITES, "ablation.positions=last"),
        "ablation.positions=last: positions are those of what is written; leave the",
    ),
    ((*WRITES, "ablation.positions=[7]", "heads=[decoder]"), "ablation.positions=[7]: position 7 is outside prompt 0"),
    (
        (*WRITES, "ablation=patch"),
        "ablation=patch: prompt 0 of inline has no counterfactual; give each prompt one of its",
    ),
    (
        (*WRITES, "ablation=mean", "ablation.reference=ioi"),
        "ablation.reference=ioi: random cannot read these (prompts=",
    ),
    (
        (*WRITES, "metrics=[embedding]"),
        "metrics=embedding: it needs a model that gives one vector per text; possible here",
    ),
    (
        (*WRITES, "metrics=[logit_diff]"),
        "metrics=logit_diff: it needs prompts with answer and distractor, and inline has none; ",
    ),
    (
        (*LABELS, "prompts.answer=[negativ]"),
        "prompts.answer='negativ': random has no such label; did you mean 'negative'?",
    ),
    (
        (
            "study",
            "model=random",
            "prompts=inline",
            "prompts.text=['gave a drink to']",
            "prompts.answer=[' Mary']",
            "prompts.distractor=[' Mary']",
        ),
        "prompts.distractor=' Mary': this is the answer: their difference is 0 whatever is ablated",
    ),
    (
        ("study", "model=random", "prompts=prose", "prompts.length=16", "ablation.positions=last"),
        "ablation.positions=last: every prompt's last token comes after the last scored position, so that every effect "
        "would be 0; use target",
    ),
    (
        ("study", "model=random", "prompts=prose", "prompts.length=16", "ablation.positions=[-1]"),
        "ablation.positions=[-1]: these come after the last scored position, so that every effect would be 0; use "
        "target, all or earlier ones",
    ),
    (
        (*LABELS, "prompts.answer=[positive]", "prompts.distractor=[x]"),
        "prompts.distractor='x': random has no such lab",
    ),
    (
        (*LABELS, "metrics=[logit_diff]"),
        "metrics=logit_diff: it needs prompts with answer and distractor, and inline has none",
    ),
    (
        (*LABELS, "metrics=[embedding]"),
        "metrics=embedding: it needs a model that gives one vector per text; possible here:",
    ),
    ((*LABELS, "prompts.generate=2"), "prompts.generate=2: random is a classifier: it does not continue a text"),
    ((*LABELS, "prompts.target=[a]"), "prompts.target='a': random is a classifier and writes no target"),
    ((*LABELS, "heads=[encoder.L0H0]"), "heads=encoder.L0H0: random has only one stack: leave out encoder"),
    (LABELS[:3], "prompts=ioi: it scores next tokens, and random is a classifier; give prompts=inline or file"),
    (MASKED[:3], "prompts=ioi: it scores next tokens, and random is an encoder; give prompts=inline or file"),
    (
        (*MASKED, "prompts.answer=[' Mary']"),
        "prompts.text='When Mary went': write [MASK] once, where the answer should",
    ),
    (
        (*MASKED, "prompts.text=['a [MASK] and a [MASK]']", "prompts.answer=[' Mary']"),
        "prompts.text='a [MASK] and a [MASK]': write [MASK] once, where the answer should stand",
    ),
    ((*MASKED, "prompts.text=['[MASK]']"), "prompts.text='[MASK]': a prompt must have at least one token of text"),
    ((*MASKED, "prompts.generate=3"), "prompts.generate=3: random is an encoder: it does not continue a text"),
    ((*MASKED, "prompts.pair=['']"), "prompts.pair='': a second text must not be empty: write one, or leave out pair"),
    (
        (*MASKED, "metrics=[label]"),
        "metrics=label: it needs a classifier; possible here: loss, logit, kl, accuracy, prob",
    ),
    (
        (*LLAMA, "prompts.pair=['a store']"),
        "prompts.pair='a store': random is a decoder and reads one text: write both",
    ),
    ((*LLAMA, "prompts.target=[a]"), "prompts.target='a': random is a decoder and writes no target"),
    (
        (*LLAMA, "metrics=[label]"),
        "metrics=label: it needs a classifier; possible here: loss, logit, kl, accuracy, prob",
    ),
    ((*R, "heads=[cross]"), "heads=cross: random has only one stack: leave out cross"),
    (
        (*R, "heads=[all,L0]"),
        "heads=all: a head is written L5H1 (layer 5, head 1), its whole layer L5, all heads are all,",
    ),
    ((*R, "model.variant=soft"), "model.variant=soft: there is no such key; known: name, dtype"),
    (
        PLANTED[:2],
        "prompts='Since Grace and Dan had to wait at the a…': planted has no tokens for these words; prompts=in",
    ),
    (
        (*PLANTED[:2], *INLINE),
        "prompts.text='When Mary went': planted has no tokens for these words; prompts=induction dra",
    ),
    (
        (*PLANTED[:2], "prompts=prose"),
        "prompts.length=null: passage en02 has 134 tokens, planted takes 80: give a leng",
    ),
    (
        (*PLANTED, "model.variant=shrap"),
        "model.variant=shrap: did you mean 'sharp'? known: sharp, soft, redundant, harm",
    ),
    ((*PLANTED, "prompts.length=40"), "prompts.length=40: this makes 81 tokens, planted takes 80"),
    ((*PLANTED, "ablation=patch"), "ablation=patch: prompt 0 of induction has no counterfactual; give each prompt one"),
    (
        (*PLANTED, "ablation=mean", "ablation.reference=ioi"),
        "ablation.reference=ioi: planted cannot read these (prompts=",
    ),
]

# --- what is done to it, kept and claimed -----------------------------------------------------------------------

KEYS = [
    ((*ABLATE, "sweep.kind=[single,layr]"), "sweep.kind.1=layr: did you mean 'layer'? known: single, layer, mlp, set"),
    ((*ABLATE, "sweep.kind=[]"), "sweep.kind=[]: name at least one"),
    ((*ABLATE, "sweep.kind=null"), "sweep.kind=None: give a list, such as sweep.kind=[…]"),
    (
        (*ABLATE, "sweep.kind=[single,set]"),
        "sets={}: name at least one set, such as sets={early: [L0H1, L1",
    ),
    (
        (*ABLATE, "sweep.kind=set", "sets={a: []}"),
        "sets.a=[]: name at least one head, or set sets.a=all",
    ),
    ((*ABLATE, "sweep.kind=set", "sets={a: [x]}"), "sets.a=x: a head is written L5H1 (layer 5, head 1)"),
    (
        (*ABLATE, "sweep.kind=set", "sets=a"),
        "sets=a: give names and what they stand for, such as sets={a",
    ),
    ((*ABLATE, "sweep.kind=set", "sets={a: null}"), "sets.a=None: give a list, such as sets.a=[…]"),
    (
        (*ABLATE, "sets=[L0]"),
        "sets=[L0]: this cannot stand there (Error merging override ++sets=[L0])",
    ),
    (
        (*ABLATE, "sweep.kind=[single,layer]", "ablation.positions=each"),
        "ablation.positions=each: sweep.kind=layer does not go through the positions with others; single, resid, attn",
    ),
    (
        (*ABLATE, "ablation=patch", "ablation.into=corrupted", "sweep.method=screen"),
        "sweep.method=screen: estimates are from the clean run, and this patch is of the corrupted one; set sweep.meth",
    ),
    ((*ABLATE, "ablation=patch", "ablation.into=cleen"), "ablation.into=cleen: did you mean 'clean'?"),
    ((*ABLATE, "ablation.into=corrupted"), "ablation.into=corrupted: there is no such key"),
    (
        (*ABLATE, "sweep.kind=resid", "ablation.positions=[99]"),
        "ablation.positions=[99]: position 99 is outside prompt",
    ),
    ((*ABLATE, "sweep.memory=inf"), "sweep.memory=inf: input should be a finite number"),
    ((*ABLATE, "sweep.metod=fast"), "sweep.metod=fast: there is no such key; did you mean 'method'? known: kind"),
    (
        (*ABLATE, "ablation=resample", "ablation.draws=0"),
        "ablation.draws=0: input should be greater than or equal to 1",
    ),
    (
        (*ABLATE, "ablation=resample", *INLINE, "~prompts.n"),
        "ablation=resample: a donor comes from another cluster, and",
    ),
    (
        (*ABLATE, "ablation=mean", "ablation.reference=inline"),
        "ablation.reference=inline: known: self, ioi, induction, p",
    ),
    (
        (*ABLATE, "ablation=mean", "ablation.draws=2"),
        "ablation.draws=2: there is no such key; known: name, positions, refe",
    ),
    (
        (*ABLATE, "ablation.positions=[]"),
        "ablation.positions=[]: known: all, last, target, each, or a list of positions",
    ),
    (
        (*ABLATE, "ablation.positions=[1,last]"),
        "ablation.positions=[1, 'last']: known: all, last, target, each, or a li",
    ),
    (
        (*ABLATE, "ablation.positions=[-99]"),
        "ablation.positions=[-99]: position -99 is outside prompt 0 ('Since Sarah a",
    ),
    ((*CACHE, "cache.also=[pattern]"), "cache.also.0=pattern: known: z, q, k, v, scores, resid"),
    ((*CACHE, "cache.heads=[L0]"), "cache.heads=['L0']: patterns are kept of all heads; set cache.also=[z]"),
    ((*CACHE, "cache.also=[z]", "cache.heads=[L9H9]"), "cache.heads=L9H9: L9H9 is outside random: it has layers 0-2"),
    ((*CACHE, "cache.also=[z]", "cache.heads=[]"), "cache.heads=[]: name at least one head, or set cache.heads=all"),
    (
        (*CACHE, "cache.also.z=1"),
        "cache.also.z=1: this cannot stand there (invalid literal for int() with base 10: 'z'); --c",
    ),
    ((*CACHE, "cache.dtype=bfloat16"), "cache.dtype=bfloat16: did you mean 'float16'? known: float32, float16"),
    ((*R, "show.prompts=[2]"), "show.prompts=2: the run has prompts 0-1"),
    ((*R, "show.prompts=2"), "show.prompts=2: give a list, such as show.prompts=[…]"),
    ((*R, "show.heads=[L9H9]"), "show.heads=L9H9: L9H9 is outside random: it has layers 0-2"),
    ((*R, "stats.confidence=95"), "stats.confidence=95: input should be less than 1"),
    (
        (*R, "stats.min_effect=5%"),
        "stats.min_effect=5%: input should be a valid number, unable to parse string as a numbe",
    ),
    ((*R, "stats.resamples=10"), "stats.resamples=10: level 0.05 needs more than 20"),
    ((*R, "stats.resamples=10000000000"), "stats.resamples=10000000000: input should be less than or equal to 1000000"),
    ((*R, "attribution.rollout.start_layer=3"), "attribution.rollout.start_layer=3: the model has layers 0-2"),
    ((*R, "attribution.rollout.head_fusion=avg"), "attribution.rollout.head_fusion=avg: known: mean, max, min"),
    (
        (*R, "metrics=[auto,label]"),
        "metrics=auto: known: loss, logit_diff, logit, kl, accuracy, prob, label, embedding",
    ),
    ((*R, "metrics={a: 1}"), "metrics={'a': 1}: give a list, such as metrics=[…]"),
    ((*R, "seed=abc"), "seed=abc: input should be a valid integer"),
    ((*R, "seed=1,2"), "seed=1,2: these are several values: for one run each: -m seed=1,2; for a list: seed=[1,2]"),
    ((*R, "heads=${nope}"), "heads=${…}: Interpolation key 'nope' not found: write a value"),
    ((*R, "sotre=x"), "sotre=x: there is no such key; did you mean 'store'? known: model"),
    ((*R, "dry_run=maybe"), "dry_run=maybe: use true or false"),
    ((*R, "execute=rey"), "execute=rey: did you mean 'ray'? known: local, ray"),
    ((*R, "execute.workers=0"), "execute.workers=0: input should be greater than or equal to 1"),
    ((*R, "execute.workers=two"), "execute.workers=two: input should be a valid integer"),
    ((*R, "execute.cpus=2"), "execute.cpus=2: there is no such key; known: name, workers"),
    ((*R, "execute=ray", "execute.cpus=0"), "execute.cpus=0: input should be greater than or equal to 1"),
    ((*R, "execute=ray", "execute.adress=auto"), "execute.adress=auto: there is no such key; did you mean 'address'?"),
    ((*R, "execute=3"), "execute=3: known: local, ray"),
    ((*R, "run=gs://bucket/run"), "run=gs://bucket/run: name a folder, or an object store as s3://BUCKET/PREFIX"),
    ((*R, "run='s3://key:word@bucket/x'"), "run=s3://…: leave keys out of the address: set them in the envir"),
    (("list", "store=s3://bucket/runs"), "store=s3://bucket/runs: runs in an object store are not listed: name a fo"),
    ((*R, "run="), "run=: this is empty: set a value, or leave the key out"),
    ((*R, "resume="), "resume=: this is empty: set a value, or leave the key out"),
    (("study", "model=[random,gpt2]"), "model=['random', 'gpt2']: known: bert"),
    (("study", "++model=nope"), "model=nope: known: bert"),
    (("study", "+model=random"), "model=random: this is chosen without +: model=random"),
    (("study", "--nope"), "--nope=: unrecognized arguments: --nope; a key is written without dashes: heads=[L5H1]"),
    (("study", "--cfg", "nope"), "--cfg=: argument --cfg/-c: invalid choice: 'nope' (choose from"),
    (("study", "prompts=prose", "prompts.length=7"), "prompts.length=7: input should be greater than or equal to 8"),
    (("study", "prompts=prose", "prompts.language=fr"), "prompts.language=fr: known: en, ja"),
    (
        ("study", "model=random", "prompts=prose", "prompts.n=999"),
        "prompts.n=999: there are 46 passages in this language",
    ),
    (
        ("study", "prompts.path=~/x"),
        "prompts.path=~/x: write key=value, and quote a value that has spaces, commas or signs",
    ),
]

#: Keys and values of earlier versions, in every place where one may be written.
OLD = [
    ((*ABLATE, "sweep.first=least_needed"), "sweep.first=least_needed: this key is now sweep.order_from"),
    ((*ABLATE, "sweep.until=20"), "sweep.until=20: this key is now sweep.max_heads"),
    ((*ABLATE, "sweep.kind=pairs", "sweep.top=3"), "sweep.top=3: this key is now sweep.pairs_top_k"),
    ((*ABLATE, "+sweep.verify=0.1"), "sweep.verify=0.1: this key is now sweep.verify_fraction"),
    ((*ABLATE, "++sweep.verify_top=5"), "sweep.verify_top=5: this key is now sweep.verify_top_k"),
    ((*ABLATE, "sweep={steps: 3}"), "sweep.steps=3: this key is now sweep.gradient_steps"),
    ((*ABLATE, "sweep.kind=keep"), "sweep.kind=keep: this value is now complement"),
    ((*ABLATE, "sweep.kind=[single,keep]"), "sweep.kind=keep: this value is now complement"),
    ((*R, "attribution.steps=4"), "attribution.steps=4: this key is now attribution.ig_steps"),
    ((*R, "attribution.top=4"), "attribution.top=4: this key is now attribution.top_k"),
    ((*R, "roles.sets=4"), "roles.sets=4: this key is now n_random_sets"),
    (("study", "prompts=parts"), "prompts=parts: this value is now context"),
    (("trace_context", "++prompts.name=parts"), "prompts.name=parts: this value is now context"),
    (("compare_models", "other=gpt2"), "other=gpt2: this key is now compare.model"),
    (("compare_models", "other.name=gpt2"), "other.name=gpt2: this key is now compare.model.name"),
    (("compare_models", "other.dtype=bfloat16"), "other.dtype=bfloat16: this key is now compare.model.dtype"),
    (("study", "sweep=pairs"), "sweep=pairs: this is a section: write sweep.KEY=value; known: kind, order"),
    (("study", "compare=gpt2"), "compare=gpt2: this is a section: write compare.KEY=value; known: model, special"),
    (("study", "sweep={kind: pais}"), "sweep.kind=pais: did you mean 'pairs'?"),
    (("study", "--multirn"), "--multirn=: unrecognized arguments: --multirn; a key is written without dashes"),
    (("render", "--config-dir"), "--config-dir=: argument --config-dir/-cd: expected one argument"),
    (("study", "--help", "sweeps"), "--help=sweeps: did you mean 'sweep'? known: model"),
    (("look", "--help", "sweep"), "--help=sweep: known: model"),
    (("study", "-m", "seed=interval(0,1)"), "seed=interval(0,1): write the values: key=a,b or key=range(0,3)"),
    (("study", "-m", "model=random", "seed=-1"), "job #0 (model=random seed=-1"),
    (("reproduce", "run=x", "sweep.kind=pairs"), "sweep.kind=pairs: a run is reproduced with its saved settings"),
]

# --- models -----------------------------------------------------------------------------------------------------

SOURCES = [
    (("study", "model=path", "model.path="), "model.path=: this is empty"),
    (("study", "model=random", "model.device=gpu"), "model.device=gpu: this machine has cpu"),
    (("study", "model=random", "model.bos=maybe"), "model.bos=maybe: known: auto, always, never"),
    (("study", "model=random", "model.tolerance=nan"), "model.tolerance=nan: input should be"),
    (("study", "model=random", "model.source=web"), "model.source=web: known: wheel, hub, path, gguf, random, planted"),
    (
        ("study", "model=hub", "model.id=a/b", "model.trust_remote_code=maybe"),
        "model.trust_remote_code=maybe: use true",
    ),
    (("study", "model=hub", "model.id='a b'"), "model.id=a b: this is not a repository name (Repo id must use"),
    (("study", "model=smollm2", "model.sha256=abc"), "model.sha256=abc: string should match pattern"),
    (("study", "model=gguf", "model.path={here}"), "model.path={here}: there is no such file"),
    (
        ("study", "model=gguf", "model.path={here}/short.gguf"),
        "model.path={here}/short.gguf: this GGUF file cannot be re",
    ),
    (
        ("study", "model=gguf", "model.path={here}/zeros.gguf"),
        "model.path={here}/zeros.gguf: this GGUF file cannot be re",
    ),
    (
        ("study", "model=path", "model.path={here}"),
        "model.path={here}: this folder has no config.json: give one that sav",
    ),
]

# --- files ------------------------------------------------------------------------------------------------------

FILES = {
    "short.gguf": b"GGUF",
    "zeros.gguf": b"GGUF\x03\0\0\0" + bytes(100),
    "empty.txt": b"",
    "gap.txt": b"one a\n\ntwo b\n",
    "utf16.txt": "the store".encode("utf-16"),
    "latin.txt": b"one a\ncaf\xe9",
    "one.txt": b"the store",
    "long.txt": b"store " * 300,
    "half.jsonl": b'{"text": "the store"}\n{"text": "the st',
    "list.jsonl": b'["the store"]',
    "mixed.jsonl": b'{"text": "a b"}\n{"text": "a c", "answer": " Mary"}',
    "number.jsonl": b'{"text": 3}',
    "twin.jsonl": b'{"text": "the store", "twin": "the store store"}',
    "blank.jsonl": b'{"text": "the store", "target": " \\n"}',
    "ragged.csv": b"text,answer\na store, Mary\nthe store\n",
    "quote.csv": b'text\n"a store\n',
    "header.csv": b"txt\na store\n",
    "rows.csv": b"text,answer\na store, Mary\n",
    "gone.csv": b"text,topic\na store,x\na store,\n",
    "split.csv": b"text,answer\na store, Bartholomew\n",
    "labels.csv": b"text,label\na store,positive\na drink,postive\n",
    "masks.csv": b"text,answer\nthe[MASK], Mary\nthe store, John\n",
    "lie.parquet": b"PAR1, or so it says",
    "rows.xlsx": b"x",
}


def of(name, *more, shape="llama"):
    """A study of the prompts of a file."""
    return ("study", "model=random", f"model.shape={shape}", "prompts=file", f"prompts.path={{here}}/{name}", *more)


PROMPTS = [
    (of("no.txt"), "prompts.path={here}/no.txt: there is no such file or folder"),
    (of("..", "prompts.path="), "prompts.path=: this is empty"),
    (
        of(""),
        "prompts.path={here}: this folder has no dataset_info.json: give one that datasets' save_to_disk wrote, or ",
    ),
    (of("empty.txt"), "prompts.path={here}/empty.txt: this file is empty: it must have at least one prompt"),
    (of("gap.txt"), "prompts.path={here}/gap.txt: line 2 is empty: give one prompt per line"),
    (of("utf16.txt"), "prompts.path={here}/utf16.txt: line 1, byte 1 (0xff) is not UTF-8: save the file as UTF-8"),
    (of("latin.txt"), "prompts.path={here}/latin.txt: line 2, byte 4 (0xe9) is not UTF-8"),
    (of("long.txt"), "prompts.path={here}/long.txt: line 1, 'store store store st…': this prompt has"),
    (of("half.jsonl"), "prompts.path={here}/half.jsonl: line 2 is not JSON (Unterminated string"),
    (of("list.jsonl"), 'prompts.path={here}/list.jsonl: line 1 is a list, not an object such as {"text": "…"}'),
    (
        of("mixed.jsonl", "prompts.answer=answer"),
        "prompts.answer=answer: {here}/mixed.jsonl: 1 of 2 rows has none (line",
    ),
    (of("number.jsonl"), "prompts.path={here}/number.jsonl: line 1 has a number, not a text, in 'text'"),
    (
        of("twin.jsonl", "prompts.counterfactual=twin"),
        "prompts.path={here}/twin.jsonl: line 1, 'the store store': the text has 5 tokens and",
    ),
    (
        of("blank.jsonl", "prompts.target=target", shape="t5"),
        "prompts.path={here}/blank.jsonl: line 1 has only white sp",
    ),
    (of("one.txt", "prompts.target=target", shape="t5"), "prompts.target=target: {here}/one.txt has no such column"),
    (
        of("ragged.csv"),
        "prompts.path={here}/ragged.csv: line 3 has 1 cells, the first line 2: quote texts that hold comma",
    ),
    (of("quote.csv"), "prompts.path={here}/quote.csv: the record that begins on line 2 cannot be read"),
    (of("header.csv"), "prompts.column=text: {here}/header.csv has no such column; did you mean 'txt'?"),
    (
        of("rows.csv", "prompts.answer=anwser"),
        "prompts.answer=anwser: {here}/rows.csv has no such column; did you mean 'a",
    ),
    (
        of("rows.csv", "prompts.tags=[topic]"),
        "prompts.tags=topic: {here}/rows.csv has no such column; known: text, answer",
    ),
    (of("rows.csv", "prompts.distractor=answer"), "prompts.distractor=answer: a distractor needs an answer"),
    (
        of("rows.csv", "prompts.answer=answer", "metrics=[logit_diff]"),
        "metrics=logit_diff: it needs prompts with distrac",
    ),
    (
        of("gone.csv", "prompts.tags=[topic]"),
        "prompts.tags=topic: {here}/gone.csv: 1 of 2 rows has none (line 3): give one",
    ),
    (
        of("split.csv", "prompts.answer=answer"),
        "prompts.path={here}/split.csv: line 2, ' Bartholomew': this must be one",
    ),
    (
        of("labels.csv", "prompts.answer=label", shape="bert_classifier"),
        "prompts.path={here}/labels.csv: line 3, 'postive': random has no such label; did you mean 'positive'?",
    ),
    (
        of("masks.csv", "prompts.answer=answer", shape="bert"),
        "prompts.path={here}/masks.csv: line 3, 'the store': write [MASK] once, where the answer should stand",
    ),
    (of("lie.parquet"), "prompts.path={here}/lie.parquet: this is not a whole parquet file ("),
    (
        of("rows.xlsx"),
        "prompts.path={here}/rows.xlsx: prompts are read from .txt, .jsonl, .csv, .tsv, .parquet and fol",
    ),
    (of("one.txt", "prompts.n=2"), "prompts.n=2: {here}/one.txt has 1 rows"),
    (of("one.txt", "ablation=patch"), "ablation=patch: prompt 0 of file has no counterfactual; give each prompt one"),
    (of("one.txt", "prompts.generate=300"), "prompts.generate=300: this makes 305 tokens, random takes 256"),
    (
        ("study", *R[1:], "store={here}/one.txt/sub"),
        "store={here}/one.txt/sub/study: part of this path is a file; choose anoth",
    ),
    (
        ("study", *R[1:], "run={here}"),
        "run={here}: this directory is not empty; continue it with resume=DIR, or name an",
    ),
    (
        ("study", *R[1:], "run={here}/one.txt"),
        "run={here}/one.txt: this is a file: name a folder",
    ),
    (("study", "resume={here}"), "resume={here}: there is no run here: it has no spec.yaml"),
    (("study", "resume={here}/one.txt"), "resume={here}/one.txt: this is a file: name a folder"),
    (("render",), "run=???: set it: run=…"),
    (("render", "run={here}"), "run={here}: this directory holds no run: it has no manifest.json"),
    (("render", "run={here}/one.txt"), "run={here}/one.txt: this is a file: name a folder"),
    (("render", "run={here}", "model=random"), "model=random: there is no such key; known: run"),
    (
        ("render", "run={here}", "show=[3]"),
        "show=[3]: this is a section: write show.KEY=value; known: prompts",
    ),
    (("render", "run={here}", "show.level=wrd"), "show.level=wrd: did you mean 'word'?"),
]


@pytest.fixture(scope="module")
def loaded_once():
    """`load_model`, which builds each model that some request asks for only once."""
    return functools.cache(harness.load_model)


@pytest.fixture
def here(tmp_path, monkeypatch, loaded_once):
    """A folder of wrong files; nothing outside it is read or kept, and models are shared by all requests."""
    monkeypatch.setattr("harness.study.request.load_model", loaded_once)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def refused(command, request):
    """The one line with which a request is refused."""
    runner, *arguments = request
    code, out, err = command(runner, *arguments, store=runner != "render" and "store=" not in " ".join(arguments))
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.strip()


def tree(folder):
    return sorted((path, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


def each_message():
    """One request for each message in every run; those that get the same one, with another key, in the soak."""
    seen, more = {}, []
    for case in (*KINDS, *KEYS, *OLD, *SOURCES, *PROMPTS):
        message = case[1].partition(": ")[2][:20]
        more += [case] * (seen.setdefault(message, case) is not case)
    cases = [*seen.values(), *more]
    return {"argvalues": most(cases, len(seen)), "ids": [" ".join(request) for request, _ in cases]}


@pytest.mark.parametrize(("request_", "says"), **each_message())
def test_a_wrong_request_is_one_line_that_names_key_value_and_remedy(command, tmp_path, here, request_, says):
    before = tree(here)
    err = refused(command, [part.replace("{here}", str(here)) for part in request_])
    assert err.startswith(says.replace("{here}", str(here)))
    assert tree(here) == before
    assert not (tmp_path / "results").exists()


# --- what is made for the case ----------------------------------------------------------------------------------


@pytest.fixture
def pickled(tmp_path):
    """A folder whose weights are only there as a pickle, with a space and a quotation mark in its name, and the model
    itself; its output weights are not those of its input, so that they can be lost."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, tokenizer = tmp_path / "an old model's", byte_tokenizer("old")
    tokenizer.save_pretrained(folder)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": len(tokenizer)}
    model = GPT2LMHeadModel(GPT2Config(**shape, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0)).eval()
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder, model


def test_the_command_in_the_refusal_of_a_pickle_converts_it(pickled, capsys):
    folder, model = pickled
    with pytest.raises(harness.RequestError) as refusal:
        harness.load_model("path", path=folder)
    said = str(refusal.value)
    assert said.startswith(f"model.path={folder}: pytorch_model.bin is a pickle, which can run code, and is not read: ")
    words = shlex.split(said[said.index("python -c") : said.index(", then set")])
    assert words[:2] == ["python", "-c"]
    exec(words[2], {})
    path = shlex.split(said.partition("then set ")[2])[1].removeprefix("model.path=")
    converted = harness.load_model("path", path=path)
    ids = torch.tensor([converted.tokenizer("Mary gave a drink")["input_ids"]])
    with torch.no_grad():
        assert (converted.bridge(ids) - model(ids).logits).abs().max() < 1e-5


def test_a_hub_model_that_has_only_pickles_is_refused_with_the_command(monkeypatch, pickled, command):
    import huggingface_hub

    folder, _ = pickled
    (folder / "pytorch_model.bin").unlink()  # which is not fetched
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    err = refused(command, ("study", "model=hub", "model.id=some/old-model"))
    assert err.startswith("model.id=some/old-model: it has no .safetensors file: perhaps its weights are a pickle")
    assert "t.GPT2LMHeadModel.from_pretrained(old, use_safetensors=False)" in err
    assert err.endswith("then set model=path model.path=old-model-safe")


def test_a_hub_model_without_a_network_is_refused_at_once(monkeypatch, command):
    def no_network(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    started = time.monotonic()
    err = refused(command, ("study", "model=hub", "model.id=nobody/no-such-model", "model.revision=v2"))
    assert time.monotonic() - started < 20
    assert err.startswith("model.id=nobody/no-such-model: it is not cached and the hub does not answer (")
    assert err.endswith("run: hf download nobody/no-such-model --revision v2")


@pytest.mark.parametrize(
    ("head", "settings", "says"),
    [
        (
            "BertForTokenClassification",
            {},
            "its head ['BertForTokenClassification'] is not known: save it with a masked",
        ),
        (
            "BertLMHeadModel",
            {"is_decoder": True},
            "its head ['BertLMHeadModel'] is not known: save it with a masked-LM",
        ),
        ("BertForSequenceClassification", {"num_labels": 1}, "it gives no distribution over labels (a regression, or "),
        (
            "BertForSequenceClassification",
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            "it gives no distribution over labels (a regression, or many labels at once): save it without its head",
        ),
        ("BertForMaskedLM", {}, "{path} has no tokenizer: save it there too"),
    ],
)
def test_an_encoder_that_cannot_be_studied(command, tmp_path, head, settings, says):
    import transformers

    sizes = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = getattr(transformers, head)(transformers.BertConfig(**sizes, **settings))
    made.save_pretrained(tmp_path / "saved")
    err = refused(command, ("study", "model=path", f"model.path={tmp_path / 'saved'}"))
    assert err.startswith("model=path: " + says.replace("{path}", str(tmp_path / "saved")))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "{not", "cannot be loaded (It looks like the config file"),
        (
            "config.json",
            {"model_type": "nope"},
            "cannot be loaded (The checkpoint you are trying to load has model type",
        ),
        ("config.json", {"model_type": "bart"}, "bart is not among the families that can be studied: decoders, bert"),
        ("config.json", {"n_layer": "x"}, "cannot be loaded (Validation error for field 'n_layer': TypeError"),
        (
            "config.json",
            {"n_layer": 2},
            "its file lacks 12 of the model's weights, such as transformer.h.1.attn.c_attn",
        ),
        ("config.json", {"n_head": 0}, "cannot be loaded (integer division or modulo by zero"),
        ("config.json", {"n_embd": 32}, "weights are of another shape than in its config: "),
        ("tokenizer.json", "{", "cannot be loaded (Expecting property name"),
        ("tokenizer.json", "{}", "cannot be loaded ("),
    ],
)
def test_a_folder_that_is_not_whole(command, pickled, tmp_path, name, content, says):
    folder, model = pickled
    whole = folder.rename(tmp_path / "whole")
    (whole / "pytorch_model.bin").unlink()
    model.save_pretrained(whole)
    text = json.dumps(json.loads((whole / name).read_text()) | content) if isinstance(content, dict) else content
    (whole / name).write_text(text)
    err = refused(command, ("study", "model=path", f"model.path={whole}"))
    assert err.startswith("model=path: ")
    assert says in err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run."""
    from harness import config, study

    asked = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 2}, "heads": ["L0H0"]}
    folder = tmp_path_factory.mktemp("finished") / "run"
    return study.run("ablate_heads", config.parse(config.RunSpec, asked), study.Place(run=str(folder)), lambda *_: None)


@pytest.mark.parametrize(
    ("runner", "arguments", "says"),
    [
        ("render", "run={run} show.heads=[L9H9]", "show.heads=L9H9: L9H9 is outside random: it has layers 0-2"),
        ("render", "run={run} show.heads=[x]", "show.heads=x: a head is written L5H1"),
        ("render", "run={run} show.prompts=[7]", "show.prompts=7: the run has prompts 0-1"),
        ("render", "run={run} shw.heads=[L0]", "shw={'heads': ['L0']}: there is no such key; did you mean 'show'?"),
        ("ablate_heads", "resume={run}", "resume={run}: this run is complete; draw it again with experiments.render"),
        ("ablate_heads", "resume={run} model=random prompts.n=3", "resume={run}: this run was started with another"),
        ("ablate_heads", "resume={run} run={run}", "run={run}: resume goes on in its own directory; leave out run or"),
        ("study", "run={run} model=random", "run={run}: this directory is not empty; continue it with resume=DIR, or"),
    ],
)
def test_a_wrong_request_leaves_a_finished_run_as_it_was(command, finished, tmp_path, runner, arguments, says):
    run = shutil.copytree(finished, tmp_path / "run")
    before = tree(run)
    err = refused(command, (runner, *arguments.replace("{run}", str(run)).split()))
    assert err.startswith(says.replace("{run}", str(run)))
    assert tree(run) == before


# --- collect, again, configs of one's own, many jobs --------------------------------------------------------------

#: Configs of the user's own that are wrong, by their path.
OWN = {
    "model/listed.yaml": b"- a\n- b\n",
    "model/empty.yaml": b"",
    "model/extra.yaml": b"name: extra\nsource: random\nlayers: 3\n",
    "model/loop.yaml": b"defaults: [loop]\n",
    "model/child.yaml": b"defaults: [nope]\n",
    "prompts/mine.yaml": b"name: mine\nn: 3\n",
    "ablation/half.yaml": b"name: scale\nfactor: half\n",
    "experiment/typo.yaml": b"# @package _global_\nstats: {resampels: 10}\n",
    "experiment/group.yaml": b"# @package _global_\ndefaults:\n  - override /modle: random\n",
    "experiment/local.yaml": b"stats: {resamples: 100}\n",
    "experiment/tabs.yaml": b"# @package _global_\nstats:\n\tresamples: 100\n",
    "experiment/twice.yaml": b"# @package _global_\nseed: 1\nseed: 2\n",
    "experiment/old.yaml": b"# @package _global_\nsweep: {until: 3}\n",
    "experiment/seed.yaml": b"# @package _global_\nseed: ${nope}\n",
    "latin.yaml": b"defaults: [ablate_heads]\nquestion: caf\xe9\n",
}

LAUNCHES = [
    ("collect", "runs=???: set it: runs=…"),
    ("collect runs=", "runs=: this is empty: set a value"),
    ("collect runs=[]", "runs=[]: name at least one"),
    ("collect runs=null", "runs=None: give a list, such as runs=[…]"),
    ("collect runs=3", "runs=3: give a list, such as runs=[…]"),
    ("collect {here}/run", "{here}/run=???: write key=value, and quote a value"),
    ("collect run={here}/run", "run={here}/run: there is no such key; did you mean 'runs'?"),
    ("collect runs={here}/none", "runs={here}/none: no run is there: give a pattern such as"),
    ("collect runs={here}/none*", "runs={here}/none*: no run is there"),
    ("collect runs=[{here}/run,{here}/none]", "runs={here}/none: no run is there"),
    ("collect runs={here}/odd", "runs={here}/odd: no run is there"),
    ("collect runs={here}/file.txt", "runs={here}/file.txt: no run is there"),
    ("collect runs={here}/half", "run={here}/half: this run is running, not complete"),
    ("collect runs={here}/bad", "run={here}/bad: its manifest.json is damaged"),
    ("collect runs={here}/torn", "run={here}/torn: its spec.yaml cannot be read (ParserError)"),
    ("collect runs={here}/nodata", "run={here}/nodata: its data.zarr cannot be read"),
    ("collect runs={here}/cached", "runs={here}/cached: this run ablated no single heads: leave it out"),
    (
        "collect runs=[{here}/run,{here}/diff]",
        "runs=2: no metric was measured in all of them (run: loss; diff: logit_diff)",
    ),
    ("collect runs=[{here}/run,{here}/deep]", "by=head: their models have other heads ("),
    ("collect runs=[{here}/run,{here}/deep] by=role", "by=role: run scored no roles: use runs of study, or by=depth"),
    ("collect runs={here}/run metric=kl", "metric=kl: all runs have loss"),
    ("collect runs={here}/run by=heads", "by=heads: did you mean 'head'? known: head, role, depth"),
    ("collect runs={here}/run top_k=0", "top_k=0: input should be greater than or equal to 1"),
    ("collect runs={here}/run top_k=many", "top_k=many: input should be a valid integer"),
    ("collect runs={here}/run model=random", "model=random: there is no such key; known: runs, metric"),
    ("collect runs={here}/run store={here}/file.txt", "store={here}/file.txt: this is a file: name a folder"),
    ("collect --config-dir {here}/none runs={here}/run", "--config-dir={here}/none: there is no such folder"),
    ("again", "run=???: set it: run=…"),
    ("again run={here}/none ablation=mean", "run={here}/none: there is no such directory"),
    ("again run={here}/odd ablation=mean", "run={here}/odd: this directory holds no run"),
    ("again run={here}/bad ablation=mean", "run={here}/bad: its manifest.json is damaged"),
    ("again run={here}/torn ablation=mean", "run={here}/torn: its spec.yaml cannot be read (ParserError)"),
    ("again run={here}/run", "run={here}/run: nothing changes: add a key, such as ablation=mean"),
    ("again run={here}/run ablation=zero", "run={here}/run: nothing changes"),
    ("again run={here}/run ablation=maen", "ablation=maen: did you mean 'mean'? known: mean, patch"),
    ("again run={here}/run ablation.draws=3", "ablation.draws=3: there is no such key; known: name, positions"),
    (
        "again run={here}/run ablation=patch prompts=prose prompts.length=16",
        "ablation=patch: prompt 0 of prose has no counterfactual",
    ),
    ("again run={here}/run ablation=mean ablation.reference=iio", "ablation.reference=iio: did you mean 'ioi'?"),
    ("again run={here}/run modle=gpt2", "modle=gpt2: there is no such key; did you mean 'model'?"),
    ("again run={here}/run model=gtp2", "model=gtp2: did you mean 'gpt2'?"),
    ("again run={here}/run model.shape=llamma", "model.shape=llamma: did you mean 'llama'?"),
    ("again run={here}/run heads=[L9H9]", "heads=L9H9: L9H9 is outside random: it has layers 0-2"),
    ("again run={here}/run metrics=[los]", "metrics=los: did you mean 'loss'?"),
    ("again run={here}/run seed=-1", "seed=-1: input should be greater than or equal to 0"),
    ("again run={here}/run prompts=inline", "prompts.text=???: set it: prompts.text=…"),
    ("again run={here}/run sweep=pairs", "sweep=pairs: this is a section: write sweep.KEY=value"),
    ("again run={here}/run sweep.until=3", "sweep.until=3: this key is now sweep.max_heads"),
    ("again run={here}/run compare.model=gpt2", "compare.model=gpt2: ablate_heads reads one model"),
    ("again run={here}/run question=ioi", "question=ioi: ablate_heads does not measure what it is answered from"),
    ("again run={here}/run resume={here}/half", "resume={here}/half: there is no such key; known: model"),
    ("again run={here}/run changes=3", "changes=3: give names and what they stand for"),
    ("again run={here}/run experiment=ioi", "experiment=ioi: there is no such key; known: run"),
    ("again run={here}/run dry_run=perhaps seed=1", "dry_run=perhaps: use true or false"),
    (
        "again -m run={here}/run ablation=maen",
        "job #0 (run={here}/run ablation=maen): ablation=maen: did you mean 'mean'?",
    ),
    ("again -m run={here}/none seed=1", "job #0 (run={here}/none seed=1): run={here}/none: there is no such directory"),
    ("reproduce -m run={here}/none", "job #0 (run={here}/none): run={here}/none: there is no such directory"),
    ("reproduce run={here}/run resume={here}/none", "resume={here}/none: there is no such directory"),
    ("ablate_heads --config-dir= model=random", "--config-dir=: this is empty: name a folder, or leave it out"),
    ("ablate_heads --config-dir {here}/file.txt", "--config-dir={here}/file.txt: there is no such folder"),
    ("ablate_heads --config-path {here}/own", "--config-name=ablate_heads: Cannot find primary config 'ablate_heads'"),
    (
        "ablate_heads --config-dir {here}/own --config-name latin",
        "--config-name=latin: {here}/own/latin.yaml cannot be read",
    ),
    ("ablate_heads --config-dir {here}/own model=listed", "model=['a', 'b']: this is a section: write model.KEY=value"),
    ("ablate_heads --config-dir {here}/own model=empty", "model.source=???: set it: model.source=…"),
    ("ablate_heads --config-dir {here}/own model=extra", "model.layers=3: there is no such key; known: name"),
    (
        "ablate_heads --config-dir {here}/own model=loop",
        "model=loop: this cannot stand there (its defaults name itself)",
    ),
    (
        "ablate_heads --config-dir {here}/own model=child",
        "model=child: this cannot stand there (In 'model/child': Could not load 'model/nope'",
    ),
    ("ablate_heads --config-dir {here}/own prompts=mine", "prompts.name=mine: did you mean 'inline'?"),
    ("ablate_heads --config-dir {here}/own ablation=half", "ablation.factor=half: input should be a valid number"),
    (
        "ablate_heads --config-dir {here}/own experiment=typo",
        "stats.resampels=10: there is no such key; did you mean 'resamples'?",
    ),
    (
        "ablate_heads --config-dir {here}/own experiment=group",
        "experiment=group: this cannot stand there (In 'experiment/group': Could not override 'modle'",
    ),
    (
        "ablate_heads --config-dir {here}/own experiment=local",
        "experiment={…}: a preset's keys are those of a run: begin its file",
    ),
    (
        "ablate_heads --config-dir {here}/own experiment=tabs",
        "experiment=tabs: this cannot stand there (while scanning",
    ),
    (
        "ablate_heads --config-dir {here}/own experiment=twice",
        "experiment=twice: this cannot stand there (while constructing a mapping",
    ),
    ("ablate_heads --config-dir {here}/own experiment=old", "sweep.until=3: this key is now sweep.max_heads"),
    ("ablate_heads --config-dir {here}/own experiment=seed", "stats.seed=${…}: Interpolation key 'nope' not found"),
    ("ablate_heads hydra.searchpath=[3]", "hydra.searchpath=[3]: give a list of folders"),
    ("ablate_heads hydra.searchpath=[pkg://nope]", "hydra.searchpath=pkg://nope: there is no such folder"),
    ("ablate_heads hydra.nope=3", "hydra.nope=3: this cannot stand there (Could not override"),
    ("ablate_heads -m model=random seed=range(3,0)", "seed=range(3,0): there is no value in it: write key=a,b"),
    ("ablate_heads -m model=random seed=glob(*)", "seed=glob(*): write the values: key=a,b or key=range(0,3)"),
    (
        "ablate_heads -m model=random seed=choice()",
        "job #0 (model=random seed=choice()): seed=choice(): write key=value",
    ),
    (
        "ablate_heads -m model=random stats.level=tag(a,interval(0,1))",
        "stats.level=tag(a,interval(0,1)): write the values",
    ),
    (
        "ablate_heads -m model=random experiment=nope",
        "job #0 (model=random experiment=nope): experiment=nope: known: bias",
    ),
    (
        "ablate_heads -m model=random resume={here}/none",
        "job #0 (model=random resume={here}/none): resume={here}/none: there is no such dir",
    ),
    (
        "ablate_heads -m model=random hydra/launcher=nope",
        "job #0 (model=random hydra/launcher=nope): hydra/launcher=nope: this cannot stand",
    ),
    (
        "ablate_heads -m model=random compare.model=gpt2",
        "job #0 (model=random compare.model=gpt2): compare.model=gpt2: ablate_heads",
    ),
    ("ablate_heads -m --cfg job model=nope", "model=nope: known: bert"),
    ("ablate_heads --multirun=3", "--multirun=3: argument --multirun/-m: ignored explicit argument '3'"),
    ("list -m where.status=gone", "job #0 (where.status=gone): where.status=gone: known: running, complete, failed"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of runs, right and wrong, and of configs of the user's own."""
    from harness import study
    from harness.config import ModelSpec, Place, RunSpec, parse
    from harness.results import manifest

    nothing_drawn()
    folder = tmp_path_factory.mktemp("saved")
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 2}, "metrics": ["loss"]}
    spec = parse(RunSpec, {**values, "stats": {"resamples": 99}, "heads": ["L0H0"]})
    other = parse(ModelSpec, {"name": "planted", "source": "planted"}, "model.")
    induction = {"name": "induction", "n": 2, "length": 18}
    runs = {
        "run": ("ablate_heads", spec),
        "diff": ("ablate_heads", replace(spec, metrics=("logit_diff",))),
        "deep": ("ablate_heads", parse(RunSpec, {**values, "prompts": induction, "model": other, "heads": ["L0H0"]})),
        "cached": ("cache_attention", spec),
    }
    for name, (runner, each) in runs.items():
        study.run(runner, each, Place(run=str(folder / name)), lambda *_: None)
    for name in ("half", "bad", "torn", "nodata"):
        shutil.copytree(folder / "run", folder / name)
    manifest.write_manifest(folder / "half", {**manifest.read_manifest(folder / "run"), "status": "running"})
    (folder / "bad" / "manifest.json").write_text("{")
    (folder / "torn" / "spec.yaml").write_text("model: [")
    shutil.rmtree(folder / "nodata" / "data.zarr")
    (folder / "odd").mkdir()
    (folder / "file.txt").write_text("no folder")
    for name, content in OWN.items():
        path = folder / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize(("line", "says"), most(LAUNCHES[::2] + LAUNCHES[1::2], 45))
def test_a_wrong_launch_is_one_line_and_leaves_what_is_saved(command, saved, tmp_path, monkeypatch, line, says):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
    runner, *arguments = line.replace("{here}", str(saved)).split()
    code, out, err = command(runner, *arguments, store=False)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(says.replace("{here}", str(saved)))
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == before
    assert not [*tmp_path.iterdir()]


# --- how long it takes to say no --------------------------------------------------------------------------------

#: One of each kind that needs no model to be found wrong.
AT_ONCE = [
    "study heads=[L0H0 model=random",
    "study model=nope",
    "study sotre=x",
    "study stats.confidence=95",
    "study run=gs://bucket/run",
    "ablate_heads metrics=[los]",
    "cache_attention cache.dtype=bfloat16",
    "compare_attributions attribution.special=maybe",
    "profile_heads roles.threshold=2",
    "trace_context prompts.n=x",
    "compare_models compare.model.name=nope",
    "render run=nowhere",
    "reproduce run=nowhere",
    "study resume=nowhere",
    "list where.status=gone",
    "benchmark rounds=0",
    "ablate_heads model=path model.path={model} heads=[L9H9]",
]


#: What the prompts do not allow: it is known from their spec and their file, without torch.
WITHOUT_TORCH = [
    ("study prompts=induction ablation=patch", "ablation=patch: prompt 0 of induction has no counterfactual; give"),
    ("ablate_heads prompts=prose ablation=patch", "ablation=patch: prompt 0 of prose has no counterfactual"),
    ("ablate_heads {inline} ablation=patch", "ablation=patch: prompt 0 of inline has no counterfactual"),
    ("study prompts=file prompts.path={rows} ablation=patch", "ablation=patch: prompt 0 of file has no counterfactual"),
    (
        "ablate_heads prompts=prose metrics=[logit_diff]",
        "metrics=logit_diff: it needs prompts with answer and distractor",
    ),
    ("study prompts=induction metrics=[loss,logit_diff]", "metrics=logit_diff: it needs prompts with answer and"),
    (
        "study {inline} prompts.answer=[b] metrics=[logit_diff]",
        "metrics=logit_diff: it needs prompts with distractor, and inline has none; take prompts=ioi",
    ),
    ("study ablation=mean ablation.reference=inline", "ablation.reference=inline: known: self, ioi, induction, prose"),
    ("study ablation=mean ablation.reference=iio", "ablation.reference=iio: did you mean 'ioi'?"),
    (
        "ablate_heads {inline} ablation=resample",
        "ablation=resample: a donor comes from another cluster, and all prompts",
    ),
    (
        "study prompts=inline prompts.text=[a,b] prompts.cluster=[c,c] ablation=resample",
        "ablation=resample: a donor comes from another cluster, and all prompts are of 'c'; take prompts from at least",
    ),
    ("study prompts=file prompts.path={rows} prompts.column=txt", "prompts.column=txt: {rows} has no such column"),
    ("study prompts=context prompts.path={rows}x.json", "prompts.path={rows}x.json: there is no such file"),
    ("study model=path model.path={model} heads=[L9H9]", "heads=L9H9: L9H9 is outside path: it has layers 0-2"),
    ("study model=path model.path={model}/none", "model.path={model}/none: there is no such folder"),
    ("study model=gguf model.path={model}/none", "model.path={model}/none: there is no such file"),
    ("collect runs={model}/none*", "runs={model}/none*: no run is there: give a pattern such as results/ablate_heads"),
    ("again run={model}/none ablation=mean", "run={model}/none: there is no such directory"),
    ("study seeds=0,1", "seeds=0,1: these are several values: for one run each: -m seed=0,1; for a list: seed=[0,1]"),
    ("study seeds=[0,1]", "seeds=[0, 1]: there is no such key; for one run each: -m seed=0,1; did you mean 'seed'?"),
    ("study layers=15-29", "layers=15-29: there is no such key; layers are named among heads: heads=L15-L29; known:"),
    ("study layers=[3,L7]", "layers=[3, 'L7']: there is no such key; layers are named among heads: heads=[L3,L7]; "),
    ("study layer=2", "layer=2: there is no such key; layers are named among heads: heads=L2; known: model"),
    ("study layers=upper", "layers=upper: there is no such key; layers are named among heads: heads=L15-L29; known"),
    ("study n=4", "n=4: there is no such key; the number of prompts is prompts.n=4; known: model"),
    ("compare_models runs=a", "runs=a: there is no such key; saved runs are set side by side by collect; did you mean"),
    (
        "compare_models run=results/mine",
        "compare.model=null: name the model to compare with, compare.model=NAME, or what differs: "
        "compare.model.dtype=bfloat16; saved runs are set side by side by collect",
    ),
    ("compare_models model=random", "compare.model=null: name the model to compare with, compare.model=NAME"),
    ("study compare.model=gpt2", "compare.model=gpt2: study reads one model; two are for experiments.compare_models"),
    ("study sweep.orders=3", "sweep.orders=3: this key is now sweep.n_random_orders"),
    ("ablate_heads -m ablation=patch prompts=prose,induction", "job #0 (prompts=prose): ablation=patch: prompt 0 of"),
]


@pytest.mark.parametrize(("line", "says"), most(WITHOUT_TORCH[::-1], 8))
def test_what_the_prompts_do_not_allow_is_refused_without_torch(fresh, tmp_path, tmp_path_factory, line, says):
    place = tmp_path_factory.mktemp("files")
    (place / "config.json").write_text('{"num_hidden_layers": 3, "num_attention_heads": 4}')
    (place / "rows.csv").write_text("text,answer\na store, Mary\nthe store, John\n")
    names = {"inline": "prompts=inline prompts.text=[a]", "rows": place / "rows.csv", "model": place}
    runner, *arguments = line.format(**names).split()
    done = fresh.run(f"experiments.{runner}", *arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(says.format(**names))
    assert done.stderr.count("\n") == line.count(",induction") + 1
    assert not done.imported & {"torch", "transformers", "transformer_lens", "matplotlib"}


@pytest.fixture(scope="module")
def fresh():
    """Commands of a process that has imported the configuration's libraries only."""
    with Launcher(LIGHT) as launcher:
        yield launcher


@pytest.mark.parametrize("line", most(AT_ONCE, 6))
def test_a_fresh_process_says_no_before_anything_heavy_is_imported(fresh, tmp_path, tmp_path_factory, line):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"num_hidden_layers": 3, "num_attention_heads": 4}')
    runner, *arguments = line.format(model=folder).split()
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "HARNESS_CACHE": str(tmp_path / "cache")}
    done = fresh.run(f"experiments.{runner}", *arguments, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert not done.imported & {"torch", "transformers", "transformer_lens", "matplotlib", "xarray", "zarr", "scipy"}
