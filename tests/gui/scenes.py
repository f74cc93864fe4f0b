"""What a user does in Scipion's windows, and what must be shown then. `python -m flexalign_plugin.tests.gui.scenes NAME
FOLDER` plays one of these functions in this process, on the screen that DISPLAY names; FOLDER holds the movies.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import tkinter as tk
import traceback
import webbrowser
from typing import Any, Dict, List, Set
from unittest import mock

import matplotlib.pyplot as plt
from pyworkflow.project import Manager

from .. import particle_data
from ..protocols.conftest import PIXEL_A, SHAPE
from ..scipion_project import import_movies, new_alignment, new_project, run
from .window import Form, Scipion, below

EER_ONLY = {"eerFractionation", "nFrames", "eerSampling"}
CONTROL_POINTS = {"controlPointX", "controlPointY", "controlPointT"}
PATCHES = {"patchesX", "patchesY"}
LOCAL = {"autoPatches", "minLocalRes", "groupNFrames", "autoControlPoints", "doRefinement"}
DISTORTION = {"scaleMaj", "scaleMin", "angDist"}
SUMMED = {"sumFrame0", "sumFrameN"}
DOSE = {"dosePerFrame", "totalDose", "preExposure"}
RESULTS = "gui_results"
POINTS_ROW = "Control_points__override_knots_"
# Some of those that everyone sees, and of those that only experts do, for every kind of movie.
NORMAL = {"inputMovies", "alignFrame0", "alignFrameN", "useAlignToSum", "gainRot", "gainFlip", "removeHotPixels"}
NORMAL |= {"defectFile", "maxShift", "maxResForCorrelation", "doLocalAlignment", "doApplyDoseFilter", "binFactor"}
NORMAL |= {"onlyProcess", "lowMemory"}
ADVANCED = {"gainConvention", "doMagCor", "fcropFactor", "doSaveMovie", "gpuMemory", "useMovieDose"}
ADVANCED |= {"moviesAtOnce", "moviesPerJob", "timeout"} | LOCAL


def project_with(folder: str, kind: str, **params: Any) -> Any:
    """A project with one imported movie of a kind."""
    project = new_project(f"gui_{sys.argv[1]}")
    import_movies(project, folder, f"*.{kind}", PIXEL_A, **params)
    return project


def form_on(scipion: Scipion, **values: Any) -> Form:
    imported = scipion.run_of("ProtImportMovies")
    return scipion.open_form(new_alignment(scipion.project, imported, **values))


def check_shown(form: Form, yes: Set[str], no: Set[str]) -> None:
    shown = form.shown()
    assert yes <= shown, f"not shown: {sorted(yes - shown)}"
    assert not no & shown, f"shown, but does not apply: {sorted(no & shown)}"
    ugly = form.ugly()
    assert not ugly, ugly


def form_of(folder: str, kind: str, only: Set[str], foreign: Set[str], expert_only: Set[str]) -> Form:
    """The form shows the parameters for this kind of movie, at both expert levels."""
    scipion = Scipion(project_with(folder, kind))
    form = form_on(scipion)
    form.pictures(f"form_{kind}_normal")
    never = foreign | CONTROL_POINTS | PATCHES | DISTORTION | SUMMED | DOSE
    check_shown(form, NORMAL | only - expert_only, never | ADVANCED | expert_only)
    form.set_level("Advanced")
    form.pictures(f"form_{kind}_advanced")
    check_shown(form, NORMAL | ADVANCED | only, never)
    return form


def form_of_mrc(folder: str) -> None:
    form = form_of(folder, "mrcs", set(), EER_ONLY | {"flipTiff"}, set())
    assert form.window.gpuListVar.get() == "0" and not form.window.useGpuVar.get()
    words = {widget["text"] for widget in below(form.window.root) if widget.winfo_class() == "Label"}
    assert {"GPU IDs", "Scipion threads", "Threads"} <= words
    # Each answer brings what it needs, alone, and takes it away again.
    for name, value, brought in (
        ("autoControlPoints", False, CONTROL_POINTS),
        ("autoPatches", False, PATCHES),
        ("doMagCor", True, DISTORTION),
        ("useAlignToSum", False, SUMMED),
        ("useMovieDose", False, DOSE),
        ("denoiserPairs", True, {"nDenoiserPairs"}),
    ):
        before = form.shown()
        form.set(**{name: value})
        if name == "autoControlPoints":
            form.pictures("form_mrcs_manual")
        check_shown(form, before | brought, set())
        assert form.shown() == before | brought, name
        form.set(**{name: not value})
        assert form.shown() == before, name
    form.set(doApplyDoseFilter=False)
    check_shown(form, {"useMovieDose"}, {"doSaveUnweightedMic"})
    form.set(splitEvenOdd=True)
    check_shown(form, set(), {"denoiserPairs", "nDenoiserPairs"})
    form.set(doLocalAlignment=False, autoPatches=False, autoControlPoints=False)
    check_shown(form, {"doLocalAlignment"}, LOCAL | PATCHES | CONTROL_POINTS)
    # The box for GPUs is Scipion's own, above the tabs.
    form.window.useGpuVar.set(1)
    form.window.gpuListVar.set("0,1")
    assert form.protocol.useGpu.get() and form.protocol.gpuList.get() == "0,1"


def form_of_eer(folder: str) -> None:
    form = form_of(folder, "eer", EER_ONLY, {"flipTiff", "eerGroup", "eerDose"}, set())
    for choice, shown in enumerate(("nFrames", "eerGroup", "eerDose")):
        form.set(eerFractionation=choice)
        check_shown(form, {shown}, {"nFrames", "eerGroup", "eerDose"} - {shown})


def form_of_tiff(folder: str) -> None:
    form_of(folder, "tiff", {"flipTiff"}, EER_ONLY, {"flipTiff"})


def form_of_tilt_series(folder: str) -> None:
    """Without input there are no parameters for a format, and none that apply only to single particles."""
    from flexalign_plugin.protocols import ProtFlexAlignTiltSeries

    scipion = Scipion(new_project("gui_tilt_series"))
    form = scipion.open_form(scipion.project.newProtocol(ProtFlexAlignTiltSeries))
    form.pictures("form_tilt_series_normal")
    everyone = {"alignFrame0", "gainRot", "doLocalAlignment", "doApplyDoseFilter", "splitEvenOdd", "lowMemory"}
    never = EER_ONLY | {"flipTiff", "onlyProcess", "denoiserPairs", "doSaveMovie"} | CONTROL_POINTS | PATCHES
    check_shown(form, everyone, never | LOCAL | {"moviesPerJob"})
    form.set_level("Advanced")
    form.pictures("form_tilt_series_advanced")
    # Local motion is not measured unless it is asked for.
    check_shown(form, everyone | {"moviesPerJob", "gpuMemory", "doMagCor"}, never | LOCAL)
    form.set(doLocalAlignment=True)
    check_shown(form, LOCAL, never)


def tree_and_help(folder: str) -> None:
    """The tree shows the protocol's name directly under Movies; *Help* explains the parameters by their labels."""
    scipion = Scipion(project_with(folder, "mrcs"))
    view = scipion.window.viewWidget
    scipion.project.settings.setProtocolView("Protocols SPA")
    view.updateProtocolsTree(view.getCurrentProtocolView())
    tree = view.protTree
    (root,) = tree.get_children()
    (movies,) = [item for item in tree.get_children(root) if tree.item(item, "text") == "Movies"]
    tree.item(root, open=True)
    tree.item(movies, open=True)
    assert "FlexAlign" in [tree.item(item, "text") for item in tree.get_children(movies)]
    scipion.picture(scipion.tk, "tree")
    form = form_on(scipion)
    said = scipion.answer(form.window._showHelp, "OK")
    assert "Corrects the motion of the specimen" in said and "Maximum shift (A), 0 = automatic" in said, said
    assert "All documentation" in said and "[[" not in said


def execute(folder: str) -> None:
    """Values entered in the form are refused if they are invalid, and otherwise reach the run, a separate process."""
    scipion = Scipion(project_with(folder, "mrcs"))
    form = form_on(scipion)
    form.set(binFactor=0.5, doLocalAlignment=False)
    said = scipion.answer(form.button("Execute").invoke, "OK")
    assert "Binning factor is 0.5" in said, said
    form.set(binFactor=2, alignFrameN=6)
    # The movies were imported without a dose, which the form warns of.
    said = scipion.answer(form.button("Execute").invoke, "Yes")
    assert "dose" in said, said
    assert not form.window.root.winfo_exists()

    def ended() -> Any:
        state = scipion.run_of("ProtFlexAlign")
        scipion.project._updateProtocol(state)
        return None if state.isActive() else state

    made = scipion.wait("the run", ended, 120)
    assert made.isFinished(), f"{made.getStatus()}: {made.getErrorMessage()}"
    made = scipion.project.getProtocol(made.getObjId(), fromRuns=False)
    (micrograph,) = made.outputMicrographs.iterItems()
    assert os.path.exists(micrograph.getFileName())
    assert micrograph.getDim()[:2] == (SHAPE[2] // 2, SHAPE[1] // 2)
    (movie,) = made.outputMovies.iterItems()
    assert len(movie.getAlignment().getShifts()[0]) == 6
    scipion.picture(scipion.tk, "project")


def wizards(folder: str) -> None:
    """Every wizard opens its window and sets the values that it has determined."""
    scipion = Scipion(project_with(folder, "mrcs", gainFile=os.path.join(folder, "turned", "gain.mrc")))
    form = form_on(scipion, useAlignToSum=False, autoControlPoints=False, autoPatches=False, minLocalRes=500.0)
    form.set_level("Advanced")
    assert form.with_wizard() == {
        "inputMovies",
        "Frames_to_ALIGN",
        "Frames_to_SUM",
        "gainRot",
        "gainFlip",
        "minLocalRes",
        "Number_of_patches",
        "autoControlPoints",
        POINTS_ROW,
    }
    for what in ("align", "sum"):
        said = scipion.answer(form.wizard(f"Frames_to_{what.upper()}"), "OK")
        assert f"{SHAPE[0]} frames" in said, said
        assert (values(form)[f"{what}Frame0"], values(form)[f"{what}FrameN"]) == (1, SHAPE[0])

    before = values(form)
    said = scipion.answer(form.wizard("gainRot"), "No")
    assert "rotation 270" in said and values(form) == before
    scipion.answer(form.wizard("gainRot"), "Yes")
    # "multiply" is the second choice
    assert {**before, "gainRot": 3, "gainFlip": 0, "gainConvention": 1} == values(form)

    for name in ("minLocalRes", POINTS_ROW):
        form.wizard(name)()
        (figure,) = open_figures(scipion)
        assert "6 x 6 control points, 5 in time" in figure.axes[0].get_title()
        scipion.picture(figure.canvas.manager.window, "patches")
        plt.close(figure)

    form.set(minLocalRes="much")
    said = scipion.answer(form.wizard("minLocalRes"), "OK")
    assert "Min size of the patch (A) is empty or not a number" in said, said
    said = scipion.answer(form.button("Execute").invoke, "OK")
    assert "Min size of the patch (A) should be a float" in said and "validation failed" not in said, said


def values(form: Form) -> Dict[str, Any]:
    """All values as a run would get them."""
    return {name: attribute.get() for name, attribute in form.protocol.iterDefinitionAttributes()}


def open_figures(scipion: Scipion) -> Any:
    """The figures of matplotlib whose windows are visible."""
    scipion.handle_events(0.3)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    for figure in figures:
        figure.canvas.manager.window.update()
    return [figure for figure in figures if figure.canvas.manager.window.winfo_viewable()]


def results_of(folder: str) -> Form:
    """*Analyze Results* of a run in which one of three movies failed."""
    if Manager().hasProject(RESULTS):  # another scene has made it
        project = Manager().loadProject(RESULTS)
    else:
        project = new_project(RESULTS)
        imported = import_movies(project, os.path.join(folder, "broken"), "*.mrcs", PIXEL_A)
        run(project, new_alignment(project, imported))
    scipion = Scipion(project)
    return scipion.open_results(scipion.project.getProtocol(scipion.run_of("ProtFlexAlign").getObjId()))


def viewer(folder: str) -> None:
    """Every eye icon except those of the tables opens its window."""
    form = results_of(folder)
    scipion = form.scipion
    addresses: List[str] = []
    webbrowser.open = lambda address: bool(addresses.append(address))  # type: ignore[assignment]
    form.pictures("viewer")
    assert not form.ugly(), form.ugly()
    eyes = {"showMicrographs", "showWeighted", "showEven", "showOdd", "showMovies", "showFailed", "showRun"}
    eyes |= {"showReport", "showMovie"}
    assert eyes == {name for name in form.shown() if name.startswith("show")}

    said = scipion.answer(form.eye("showWeighted"), "OK")
    assert "nothing yet" in said, said
    form.set(movieId=99)
    said = scipion.answer(form.eye("showMovie"), "OK")
    assert "no aligned movie with id 99" in said, said
    form.set(movieId=1)
    for name, titles in (("showRun", 3), ("showMovie", 6)):
        form.eye(name)()
        (figure,) = open_figures(scipion)
        assert len(figure.axes) >= titles, name
        window = figure.canvas.manager.window  # with its toolbar; a laptop has 1366 x 768, less title bar and panel
        assert window.winfo_width() <= 1366 and window.winfo_height() <= 768 - 70, name
        scipion.picture(figure.canvas.manager.window, name)
        plt.close(figure)
    form.eye("showReport")()
    assert [address.endswith("/extra/report.html") for address in addresses] == [True]

    form.eye("showFailed")()
    (window,) = (w for w in scipion.windows() if w.title() == "Movies that failed")
    text = "".join(w.get("1.0", "end") for w in below(window) if isinstance(w, tk.Text))
    assert "broken.mrcs" in text and "copy the file again" in text, text
    scipion.picture(window, "failed")


def tables(folder: str) -> None:
    """The tables are windows of a program of Scipion's own, with as many rows as the outputs have items."""
    form = results_of(folder)
    started: List[subprocess.Popen] = []
    start = subprocess.Popen

    def remember(*args: Any, **kwargs: Any) -> subprocess.Popen:
        started.append(start(*args, **kwargs))
        return started[-1]

    with mock.patch("subprocess.Popen", remember):
        for eye in ("showMicrographs", "showMovies"):
            form.eye(eye)()
    try:
        for table, name in zip(started, ("micrographs", "movies")):
            title = f"^Metadata: {name}.sqlite .2 items.$"
            seen = ["xdotool", "search", "--onlyvisible", "--name", title]
            form.scipion.wait(
                f"the table of {name}",
                lambda seen=seen, table=table: (
                    table.poll() is not None or not subprocess.call(seen, stdout=subprocess.DEVNULL)
                ),
                limit_s=40,
            )
            if table.poll() is not None:
                print(f"The program of the table of {name} ended with {table.poll()}.")
    finally:
        for table in started:
            table.kill()
            table.wait()


def particles(folder: str) -> None:
    """Form, wizards and viewer of SwiftAlign, and the form of the consensus."""
    from flexalign_plugin.protocols import ProtSwiftConsensus

    project = new_project(f"gui_{sys.argv[1]}")
    made = particle_data.make(os.path.join(folder, "particles"), 60)
    inputs = particle_data.particles_of(project, made, range(60)), particle_data.volumes_of(project, made.volumes)
    protocol = particle_data.new_swift_align(project, *inputs, maskDiameter=0)
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    scipion = Scipion(project)
    form = scipion.open_form(protocol)
    form.pictures("particles_form_normal")
    assert not form.ugly(), form.ugly()
    expert = {"initialResolution", "maxPsi", "memory"}
    check_shown(form, {"inputParticles", "inputVolumes", "inputMask", "symmetryGroup", "maskDiameter"}, expert)
    form.set_level("Advanced")
    form.pictures("particles_form_advanced")
    check_shown(form, expert, set())
    assert form.with_wizard() == {"maskDiameter", "maximumResolution"}
    said = scipion.answer(form.wizard("maximumResolution"), "Yes")
    assert "no half maps" in said and values(form)["maximumResolution"] == 12.0
    said = scipion.answer(form.wizard("maskDiameter"), "Yes")
    assert "A in diameter" in said and values(form)["maskDiameter"] > 100
    (figure,) = open_figures(scipion)
    scipion.picture(figure.canvas.manager.window, "particles_diameter")
    plt.close(figure)
    form.close()

    results = scipion.open_results(protocol)
    results.pictures("particles_viewer")
    assert not results.ugly(), results.ugly()
    for name, n_axes in (("showOverview", 6), ("showExamples", 1)):
        results.eye(name)()
        (figure,) = open_figures(scipion)
        assert len(figure.axes) >= n_axes, name
        scipion.picture(figure.canvas.manager.window, f"particles_{name}")
        plt.close(figure)
    for name, words in (("showClasses", "nothing yet"), ("showFailed", "No particle failed")):
        said = scipion.answer(results.eye(name), "OK")
        assert words in said, said
    results.close()

    form = scipion.open_form(project.newProtocol(ProtSwiftConsensus))
    form.pictures("particles_consensus")
    assert not form.ugly(), form.ugly()


def wait_for_nobody(folder: str) -> None:
    """A dialog that nobody answers, and a running program: the test must end in spite of both."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Scipion(new_project("gui_waits")).window.askYesNo("Is anybody here?", "Nobody.")


SCENES = {
    f.__name__: f
    for f in (
        form_of_mrc,
        form_of_eer,
        form_of_tiff,
        form_of_tilt_series,
        tree_and_help,
        execute,
        wizards,
        viewer,
        tables,
        particles,
        wait_for_nobody,
    )
}


def main() -> None:
    faulthandler.dump_traceback_later(170, exit=True)  # where something waits although it should not
    status = 0
    try:
        SCENES[sys.argv[1]](sys.argv[2])
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the project window's threads and timers would go on


if __name__ == "__main__":
    main()
