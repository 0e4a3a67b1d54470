"""Sphinx extension: a page is built again when something that it read has changed, and only then.

While a page's notebook runs, `supermask_tf.records` notes in the file SUPERMASK_READS what it
opens, and its fingerprint then. These, and that of the modules that draw the records, are kept in
Sphinx's environment beside the page; when one differs at the next build the page is outdated, as if
its text had changed. (jupyter-cache looks at code cells alone.)

It also draws a page for each run from its record, so that the book can link to it, and takes out of
the pages what would ask for files that are not there when a page is read without a server and
without a network.
"""

import functools
import hashlib
import os
import re
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import astroid
import forked
import nbclient
from jupyter_cache.executors import utils as cache_utils
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from supermask_tf.records import Run, fingerprint, load_runs, page

# What turns records into figures and tables.
_SOURCES = (
    "__init__.py",
    "_container.py",
    "_registration.py",
    "ground/*.py",
    "initializers.py",
    "packing.py",
    "paper/**/*.py",
    "records/*.py",
    "tickets.py",
)


def setup(app: Sphinx) -> dict:
    app.connect(
        "builder-inited", _start_rendering, priority=100
    )  # before the package is read for the API reference
    app.connect("builder-inited", _read_in_parallel)
    app.connect("builder-inited", _describe_our_modules_alone, priority=100)  # before AutoAPI
    app.connect("env-before-read-docs", _longest_first)
    app.connect("source-read", _before_reading)
    app.connect("doctree-read", _after_reading)
    app.connect("env-purge-doc", lambda app, env, docname: _evidence(env).pop(docname, None))
    app.connect(
        "env-merge-info",
        lambda app, env, docnames, other: _evidence(env).update(
            {name: read for name, read in _evidence(other).items() if name in docnames}
        ),
    )
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: _outdated(app, env))
    app.connect("html-page-context", _without_thebe, priority=999)
    app.connect("build-finished", _finish_rendering)
    app.connect(
        "build-finished", _finish_pages, priority=900
    )  # after the redirect from index.html is written
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _evidence(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    """For each page, what it read and the fingerprint that this had."""
    if not hasattr(env, "supermask_evidence"):
        env.supermask_evidence = {}
    return env.supermask_evidence


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_in_parallel(app):
    """Reading a page runs its notebook: most of the build's time. `jupyter-book build` has no
    option for it.

    Sphinx shares the pages out beforehand, in parts of unequal work: so four times as many parts as
    cores.
    """
    app.parallel = 4 * _cores()
    forked.prepare()
    cache_utils.executenb = functools.partial(
        nbclient.execute,
        kernel_manager_class=forked.KernelManager,
        shutdown_kernel="immediate",  # it keeps nothing
        extra_arguments=["--InlineBackend.figure_formats=svg"],  # sharp on any screen
    )
    # These say nothing on parallel reading, which Sphinx warns of and takes for a no. They keep
    # nothing of a page: the first two change transforms and section numbers for all, the last
    # copies its files at the end.
    for name in ("sphinx_jupyterbook_latex", "sphinx_multitoc_numbering", "sphinx-mathjax-offline"):
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def _describe_our_modules_alone(app):
    """AutoAPI's parser follows what a module imports, in search of types that the reference does
    not show: six hundred modules of NumPy, pandas and TensorFlow, twenty seconds of every build.
    """
    of_any_module = astroid.manager.AstroidManager.ast_from_module_name
    ours = "supermask_tf", "builtins", "functools"  # with its `cached_property`

    def of_ours(manager, name, *args, **options):
        if name and name.partition(".")[0] not in ours:
            raise astroid.AstroidImportError(f"{name} is not described here.")
        return of_any_module(manager, name, *args, **options)

    astroid.manager.AstroidManager.ast_from_module_name = of_ours


def _longest_first(app, env, docnames):
    """The page that trains two networks begins at once, so that it does not outlast all others."""
    docnames.sort(key=lambda name: (name != "book/mask", name))


def _log(app: Sphinx) -> Path:
    return Path(app.doctreedir) / f"supermask_reads_{os.getpid()}.txt"


def _before_reading(app, docname, source):
    _log(app).unlink(missing_ok=True)
    os.environ["SUPERMASK_READS"] = str(_log(app))  # the page's kernel inherits it
    # It shows the docstrings or the parameters, or runs a script of its own with the package.
    if any(sign in source[0] for sign in ("autoapimodule", "sm.Experiment", "mask.example")):
        for module in (Path(app.srcdir) / "supermask_tf").rglob("*.py"):
            app.env.note_dependency(str(module))
    # What lies in a folder of the page's name is the page's.
    for file in (Path(app.srcdir) / docname).glob("*"):
        app.env.note_dependency(str(file))


def _after_reading(app, doctree):
    log = _log(app)
    if log.exists():
        read = dict(reversed(line.split(" ", 1)) for line in log.read_text().splitlines())
        _evidence(app.env)[app.env.docname] = read | {"": _source_fingerprint(app)}
        log.unlink()


def _outdated(app, env):
    source = _source_fingerprint(app)
    return [
        docname
        for docname, read in _evidence(env).items()
        if any((fingerprint(path) if path else source) != was for path, was in read.items())
    ]


def _source_fingerprint(app: Sphinx) -> str:
    package = Path(app.srcdir) / "supermask_tf"
    return hashlib.sha256(
        b"".join(path.read_bytes() for name in _SOURCES for path in sorted(package.glob(name)))
    ).hexdigest()


def _start_rendering(app):
    """Each run's record as runs/<study>/<run>.html, made again when it, or what draws it, is newer:
    on cores that have nothing else to do.
    """
    if app.builder.name != "html":
        return
    drawn_by = max(Path(page.__file__).stat().st_mtime_ns, Path(__file__).stat().st_mtime_ns)
    wanted, outdated = set(), []
    for study in sorted(Path(app.srcdir).glob("runs/*/")):
        runs = load_runs(study)
        children = defaultdict(list)
        for run in runs:
            children[run.parameters.get("init_from")].append(run.path)
        for run in runs:
            target = Path(app.outdir) / "runs" / study.name / f"{run.name}.html"
            wanted.add(target)
            changed = max(drawn_by, (run.path / "summary.json").stat().st_mtime_ns)
            if not target.exists() or target.stat().st_mtime_ns < changed:
                target.parent.mkdir(parents=True, exist_ok=True)
                outdated.append((run.path, target, children[run.name]))
    pool = ProcessPoolExecutor(_cores(), initializer=getattr(os, "nice", None), initargs=(10,))
    app.supermask_rendering = pool, pool.map(_render, outdated, chunksize=32), wanted


def _finish_rendering(app, exception):
    if app.builder.name != "html":
        return
    pool, rendered, wanted = app.supermask_rendering
    with pool:
        if exception:
            pool.shutdown(cancel_futures=True)
            return
        list(rendered)  # raises what a page raised
    for target in (Path(app.outdir) / "runs").glob("*/*.html"):
        if target not in wanted:
            target.unlink()


def _render(task: tuple[Path, Path, list[Path]]) -> None:
    record, target, children = task
    target.write_text(page.page(Run(record), [Run(child) for child in children]))


def _without_thebe(app, pagename, templatename, context, doctree):
    """jupyter-book always loads sphinx-thebe, which names a script on another host (twice, which is
    an error).
    """

    def kept(file):
        return "thebe" not in f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', '')}"

    for files in ("script_files", "css_files"):
        context[files] = [file for file in context.get(files, []) if kept(file)]


def _finish_pages(app, exception):
    """The theme preloads its fonts in a way that browsers refuse for a page opened as a file; they
    load without it. And a page without an icon has the browser ask for one that is not there. A
    line must not end between a number and its sign, unit or count.
    """
    out = Path(app.outdir)
    for file in [] if exception or app.builder.name != "html" else out.glob("**/*.html"):
        if out / "runs" in file.parents:  # made above, without any of it
            continue
        text = file.read_text()
        finished = re.sub(r'\s*<link rel="preload" as="font"[^>]*>', "", text)
        finished = re.sub(
            r"(?<=±) (?=\d)|(?<=\d) (?=%)|(?<=\(n) (?== \d)|(?<=\(n =) (?=\d)", "\u00a0", finished
        )
        if 'rel="icon"' not in finished:
            finished = (
                '<link rel="icon" href="data:,">' + finished
                if "<head>" not in finished
                else finished.replace("<head>", '<head><link rel="icon" href="data:,">', 1)
            )
        if finished != text:
            file.write_text(finished)
