"""How the figures of calls are said: the table, the plots, and the chapter of docs/PERFORMANCE.md that holds those of the last run."""
import shutil
import subprocess

import stand
from figures import HEADING

RESULTS = stand.SOURCE / "tests/bench/results"
DOCUMENT = stand.SOURCE / "docs/PERFORMANCE.md"
DOCUMENT_PLOT = "throughput"
BEGIN, END = "<!-- ./dev bench writes from here ... -->\n", "<!-- ... to here. -->\n"

# name -> (key of the data, title, x axis, y axis, logarithmic axes, titles of the columns after the first, divisor of y)
PLOTS = {
    DOCUMENT_PLOT: ("connections", "GetUser, 32 streams on each connection, one worker", "connections", "calls/s (thousands)", "x 2",
                  ("userd, from PostgreSQL", "stock gRPC echo, no database"), 1000),
    "latency": ("rates", "GetUser in an open loop, one worker", "calls/s offered", "latency (us)", "y", ("p50", "p99", "p99.9"), 1),
    "rows": ("rows", "GetUser, 8 x 32, one worker", "rows in the table", "calls/s (thousands)", "x", ("userd",), 1000),
    "memory": ("memory", "memory of a worker (PSS)", "connections", "MiB", "", ("worker",), 1024),
}


def describe(machine):
    """What the figures were taken on, in one line."""
    return (f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, PostgreSQL {machine['postgresql']}, "
            f"gRPC {machine['grpc']}; load {machine['load'][0]:.2f} before the run; {machine['at'][:10]}")


def draw(name, data, directory):
    """One SVG; its path. None: there is nothing to draw."""
    key, title, x_title, y_title, logarithmic, columns, divisor = PLOTS[name]
    points = data.get(key)
    if not points:
        return None
    table = directory / f"{name}.dat"
    table.write_text("".join(" ".join(map(str, point)) + "\n" for point in points), encoding="ascii")
    path = directory / f"{name}.svg"
    lines = ", ".join(f"'{table}' using 1:(${index + 2} / {divisor}) with linespoints linewidth 2 pointtype 7 pointsize 0.5 "
                      f"title '{column}'" for index, column in enumerate(columns))
    script = f"""set terminal svg size 720,400 font 'sans,12' background 'white'
set output '{path}'
set title '{title}'
set xlabel '{x_title}'
set ylabel '{y_title}'
set grid
set key outside bottom center horizontal
{f'set logscale {logarithmic}' if logarithmic else ''}
{'' if logarithmic == 'y' else 'set yrange [0:*]'}
plot {lines}
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return path


def draw_all(data, directory):
    """Says aloud what is left out, and why."""
    if shutil.which("gnuplot") is None:
        print("bench: no plots: gnuplot is missing (Debian: gnuplot-nox)")
        return []
    return [path for path in (draw(name, data, directory) for name in PLOTS) if path]


def update_document(figures, machine, directory):
    """The table between the two markers, and the plot beside it, become those of this run."""
    plot = directory / f"{DOCUMENT_PLOT}.svg"
    if not plot.exists():
        raise SystemExit("bench: docs/PERFORMANCE.md needs the plot of connections: run all rows, with gnuplot")
    text = DOCUMENT.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"bench: {DOCUMENT} lacks the line {BEGIN if not begin else END}")
    RESULTS.mkdir(exist_ok=True)
    shutil.copyfile(plot, RESULTS / plot.name)
    lines = ["| " + " | ".join(HEADING) + " |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(figure.cells()) + " |" for figure in figures]
    block = (f"{describe(machine)}.\n\n" + "\n".join(lines) +
             f"\n\n![throughput against connections](../tests/bench/results/{plot.name})\n")
    DOCUMENT.write_text(head + begin + block + end + tail, encoding="utf-8")
    print(f"bench: {DOCUMENT} and {RESULTS / plot.name} are those of this run")
