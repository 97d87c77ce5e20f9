"""The book's drawings, made at build time as SVG: real text, and right in light and in dark mode.

A drawing is a function that puts boxes, lanes and arrows on a `Sheet`; one is added in a few lines (see `DRAWINGS`).
Coordinates are in CSS pixels, from the upper left corner.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import drawsvg

from helpers.processes import write_atomically

_LIGHT = (
    "--d-ink:#1b2733;--d-soft:#52616f;--d-line:#7b8b9a;--d-box:#ffffff;--d-lane:#f1f5f8;--d-here:#d8f0ea;"
    "--d-edge:#0f766e"
)
_DARK = (
    "--d-ink:#e6edf3;--d-soft:#b0bdca;--d-line:#8496a8;--d-box:#1c2630;--d-lane:#151d25;--d-here:#12403b;"
    "--d-edge:#4fd1c0"
)
_STYLE = f"""
.t-drawing{{{_LIGHT};font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}}
@media (prefers-color-scheme:dark){{.t-drawing{{{_DARK}}}}}
html[data-theme="light"] .t-drawing{{{_LIGHT}}}
html[data-theme="dark"] .t-drawing{{{_DARK}}}
.t-drawing text{{fill:var(--d-ink);font-size:14px}}
.t-drawing .soft{{fill:var(--d-soft);font-size:12px}}
.t-drawing .lane{{fill:var(--d-lane);stroke:var(--d-line);stroke-opacity:.35}}
.t-drawing .box{{fill:var(--d-box);stroke:var(--d-line);stroke-width:1.2}}
.t-drawing .here{{fill:var(--d-here);stroke:var(--d-edge);stroke-width:1.6}}
.t-drawing .planned{{stroke-dasharray:5 4}}
.t-drawing .arrow{{fill:none;stroke:var(--d-line);stroke-width:1.5}}
.t-drawing .tip{{fill:var(--d-line);stroke:none}}
"""
_TIP = 7.0

Point = tuple[float, float]


class Sheet:
    """A drawing under way.

    Args:
        width: Its width.
        height: Its height.
        title: What it shows; read aloud to who can't see it.
        description: The same in a sentence or two.
    """

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.drawing = drawsvg.Drawing(width, height, role="img", class_="t-drawing", id_prefix="d")
        self.drawing.append(drawsvg.Raw(f"<title>{title}</title><desc>{description}</desc><style>{_STYLE}</style>"))

    def text(self, x: float, y: float, words: str, *, soft: bool = False, anchor: str = "start") -> None:
        """Write a line; `y` is its middle."""
        kind = "soft" if soft else "name"
        self.drawing.append(
            drawsvg.Text(words, None, x, y, class_=kind, text_anchor=anchor, dominant_baseline="central")
        )

    def lane(self, x: float, y: float, width: float, height: float, title: str) -> None:
        """Draw a region with its title in the upper left corner."""
        self.drawing.append(drawsvg.Rectangle(x, y, width, height, rx=10, class_="lane"))
        self.text(x + 12, y + 16, title, soft=True)

    def box(self, x: float, y: float, width: float, height: float, *lines: str, kind: str = "") -> None:
        """Draw a box: its name, and under it smaller lines. `kind`: `here` (works today) or `planned`."""
        self.drawing.append(drawsvg.Rectangle(x, y, width, height, rx=7, class_=f"box {kind}".strip()))
        top = y + height / 2 - (len(lines) - 1) * 8.5
        for row, words in enumerate(lines):
            self.text(x + width / 2, top + 17 * row, words, soft=row > 0, anchor="middle")

    def arrow(self, *points: Point, label: str = "", at: Point | None = None, both: bool = False) -> None:
        """Draw an arrow along points, with a label (by default above the middle of its first part)."""
        self.drawing.append(drawsvg.Lines(*(c for point in points for c in point), class_="arrow"))
        self._tip(points[-2], points[-1])
        if both:
            self._tip(points[1], points[0])
        if label:
            (x0, y0), (x1, y1) = points[0], points[1]
            x, y = at or ((x0 + x1) / 2, (y0 + y1) / 2 - 10)
            self.text(x, y, label, soft=True, anchor="middle")

    def _tip(self, before: Point, end: Point) -> None:
        (x0, y0), (x1, y1) = before, end
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        ux, uy = (x1 - x0) / length * _TIP, (y1 - y0) / length * _TIP
        sides = (x1, y1, x1 - ux - uy / 2, y1 - uy + ux / 2, x1 - ux + uy / 2, y1 - uy - ux / 2)
        self.drawing.append(drawsvg.Lines(*(round(c, 2) for c in sides), close=True, class_="tip"))

    def row(self, x: float, y: float, width: float, height: float, boxes: Sequence[tuple[str, ...]], kind: str) -> None:
        """Draw boxes beside each other, evenly over a width."""
        step = (width + 12) / len(boxes)
        for place, lines in enumerate(boxes):
            self.box(x + place * step, y, step - 12, height, *lines, kind=kind)


def system_map() -> Sheet:
    """Draw the whole system, what works today apart from what is planned."""
    sheet = Sheet(
        760,
        560,
        "The whole system",
        "A laptop with notebooks and helpers makes a cloud VM and reaches it over SSH. On it Docker, the GPU's set-up, "
        "the platform, a Kubernetes cluster, Ray, the deployed Forwarder and Airflow work today; a language model and "
        "six stores are planned. SSH configuration and the Forwarder on the laptop itself work today.",
    )
    sheet.lane(10, 10, 740, 176, "your machine")
    sheet.row(28, 44, 340, 52, [("notebooks", "you step through them"), ("helpers", "they do the work")], "here")
    sheet.box(424, 44, 308, 52, "SSH configuration", "chapter 01: ssh cpouta", kind="here")
    sheet.box(
        28, 116, 560, 54, "the Forwarder, first here", "chapter 08: FastAPI, Celery, Flower, Beat, Redis", kind="here"
    )
    sheet.arrow((368, 70), (424, 70))
    sheet.arrow((286, 96), (286, 116))
    sheet.arrow((660, 96), (660, 218), label="SSH", at=(680, 200))
    sheet.lane(10, 218, 740, 290, "a VM in the CPouta cloud (OpenStack): chapter 02")
    hosts = [("Docker", "chapter 03"), ("GPU setup", "chapter 04"), ("OSS platform", "chapter 05")]
    sheet.row(28, 250, 525, 46, hosts, "here")
    sheet.box(565, 250, 167, 46, "storage: six kinds", kind="planned")
    sheet.box(28, 308, 704, 28, "Kubernetes in Docker (KinD): chapter 06", kind="here")
    sheet.box(44, 344, 216, 46, "Ray, by Helm", "chapter 07", kind="here")
    sheet.box(272, 344, 216, 46, "language model", kind="planned")
    sheet.box(500, 344, 216, 46, "Airflow, by Helm", "chapter 10", kind="here")
    sheet.box(
        44, 410, 672, 62, "the Forwarder, deployed", "chapter 09: the same programs, by YAML and Kustomize", kind="here"
    )
    sheet.box(200, 524, 18, 18, kind="here")
    sheet.text(226, 533, "works today", soft=True)
    sheet.box(340, 524, 18, 18, kind="planned")
    sheet.text(366, 533, "planned: a later chapter brings it", soft=True)
    return sheet


def node_port() -> Sheet:
    """Draw the doors on the way to an app behind a NodePort."""
    sheet = Sheet(
        760,
        190,
        "The way to an app behind a NodePort",
        "From the laptop a tunnel leads to port 7001 of the machine. Docker hands that to port 31001 of the node, a "
        "container, where the Service hands it to a pod.",
    )
    sheet.lane(10, 10, 150, 166, "your machine")
    sheet.box(26, 78, 118, 54, "the browser", "localhost:PORT", kind="here")
    sheet.lane(196, 10, 554, 166, "the machine with Docker")
    sheet.box(212, 78, 124, 54, "port 7001", "hostPort", kind="here")
    sheet.lane(366, 38, 370, 124, "the node, a container")
    sheet.box(380, 78, 108, 54, "port 31001", "containerPort", kind="here")
    sheet.box(512, 78, 96, 54, "Service", "NodePort", kind="here")
    sheet.box(632, 78, 90, 54, "pod", "hello", kind="here")
    sheet.arrow((144, 105), (212, 105), label="tunnel", at=(178, 92))
    sheet.arrow((336, 105), (380, 105))
    sheet.arrow((488, 105), (512, 105))
    sheet.arrow((608, 105), (632, 105))
    return sheet


def setup_steps() -> Sheet:
    """Draw the ten steps of the platform's set-up script."""
    sheet = Sheet(
        760,
        240,
        "The ten steps of integration-setup.sh",
        "The script loads its configuration, asks five questions, checks resources and system, makes the cluster and "
        "the registry, applies YAML, installs Helm, the GPU operator with nvshare and Ray where they were asked for, "
        "and runs tests.",
    )
    rows = (
        (("1 configuration", "config.env"), ("2 options", "five questions"), ("3 resources", "enough?"),
         ("4 OS", "Docker, kind, kubectl"), ("5 scripts", "cluster, registry")),
        (("10 tests", "does it answer?"), ("9 Ray", "if asked for"), ("8 GPU operator", "and nvshare, if asked"),
         ("7 Helm", "if needed"), ("6 YAML", "the stacks")),
    )  # fmt: skip
    for row, (top, boxes) in enumerate(zip((40, 150), rows, strict=True)):
        for column, lines in enumerate(boxes):
            step = column + 1 if row == 0 else 10 - column
            sheet.box(14 + 148 * column, top, 138, 54, *lines, kind="planned" if step in (8, 9) else "here")
    for column in range(4):
        x = 152 + 148 * column
        sheet.arrow((x, 67), (x + 10, 67))
        sheet.arrow((x + 10, 177), (x, 177))
    sheet.arrow((675, 94), (675, 150), label="you add yours here", at=(610, 116))
    sheet.text(14, 18, "what you may change: 2, 5 and 7 to 10", soft=True)
    sheet.text(14, 226, "dashed: only where it was asked for", soft=True)
    return sheet


def gpu_shares() -> Sheet:
    """Draw ten pods that share a GPU, and the eleventh that waits."""
    sheet = Sheet(
        760,
        230,
        "Ten pods share one GPU",
        "The node offers ten shares of one GPU. Ten pods have one each and run; the eleventh waits until one is free.",
    )
    sheet.lane(10, 10, 590, 206, "the node: nvshare.com/gpu: 10")
    for place in range(10):
        x, y = 26 + 112 * (place % 5), 38 + 46 * (place // 5)
        sheet.box(x, y, 104, 36, f"pod {place + 1}", kind="here")
    sheet.box(26, 160, 552, 40, "one GPU: nvshare lets one pod compute at a time, for some seconds each")
    sheet.arrow((302, 120), (302, 160), label="a share each", at=(350, 140))
    sheet.box(630, 60, 116, 54, "pod 11", "Pending", kind="planned")
    sheet.arrow((630, 87), (600, 87))
    sheet.text(688, 134, "until a share is free", soft=True, anchor="middle")
    return sheet


def cpouta() -> Sheet:
    """Draw what chapter 02 makes in the cloud."""
    sheet = Sheet(
        760,
        230,
        "The VM in the cloud",
        "SSH from the reader's address passes the security group and reaches the server through its floating IP; any "
        "other address is stopped. A persistent volume is attached to the server and outlives it.",
    )
    sheet.lane(10, 10, 150, 206, "your machine")
    sheet.box(26, 64, 118, 54, "ssh cpouta", "your address", kind="here")
    sheet.box(26, 154, 118, 54, "anyone else")
    sheet.lane(206, 10, 544, 206, "your project in CPouta")
    sheet.box(224, 64, 124, 54, "floating IP", "0.2 BU an hour", kind="here")
    sheet.lane(376, 34, 190, 170, "security group")
    sheet.box(392, 64, 158, 54, "server", "Ubuntu, its key pair", kind="here")
    sheet.box(604, 64, 130, 54, "volume", "/media/volume", kind="here")
    sheet.text(471, 138, "port 22 for your address only,", soft=True, anchor="middle")
    sheet.text(471, 155, "everything out", soft=True, anchor="middle")
    sheet.text(669, 136, "stays when the", soft=True, anchor="middle")
    sheet.text(669, 153, "server goes", soft=True, anchor="middle")
    sheet.arrow((144, 91), (224, 91), label="SSH", at=(183, 78))
    sheet.arrow((348, 91), (392, 91))
    sheet.arrow((550, 91), (604, 91), both=True)
    sheet.arrow((144, 181), (376, 181))
    sheet.text(366, 168, "✘", anchor="end")
    return sheet


def ways_to_use() -> Sheet:
    """Draw the three ways to use the book."""
    sheet = Sheet(
        720,
        150,
        "Three ways to use the book",
        "Read the rendered pages, do the steps in JupyterLab, or trust them because they are the tests.",
    )
    sheet.row(
        10,
        14,
        700,
        122,
        [
            ("Read", "make book", "the rendered pages,", "with this machine's results"),
            ("Do", "make live", "the same steps, one by one,", "on a machine of your own"),
            ("Trust", "make test", "the same notebooks", "are the integration tests"),
        ],
        "here",
    )
    return sheet


def ssh_tunnel() -> Sheet:
    """Draw an SSH tunnel inside a shared connection."""
    sheet = Sheet(
        720,
        210,
        "An SSH tunnel",
        "A program on your machine connects to a local port. The SSH client carries "
        "the bytes inside its one connection to port 22 of the VM, whose SSH server connects to the service on "
        "the VM's loopback address.",
    )
    sheet.lane(10, 10, 290, 190, "your machine")
    sheet.lane(420, 10, 290, 190, "the VM")
    sheet.box(28, 44, 110, 50, "a program", "browser, curl")
    sheet.box(172, 44, 112, 50, "ssh -L", "127.0.0.1:8080", kind="here")
    sheet.box(436, 44, 112, 50, "SSH server", "port 22", kind="here")
    sheet.box(582, 44, 112, 50, "a service", "127.0.0.1:80")
    sheet.arrow((138, 69), (172, 69))
    sheet.arrow((284, 69), (436, 69), label="one connection")
    sheet.arrow((548, 69), (582, 69))
    sheet.box(28, 130, 256, 50, "ssh, scp, further commands", "channels of the same connection")
    sheet.arrow((228, 130), (228, 94))
    sheet.text(436, 148, "nobody outside can reach", soft=True)
    sheet.text(436, 165, "the service's port", soft=True)
    return sheet


def forwarder() -> Sheet:
    """Draw the Forwarder on one machine."""
    sheet = Sheet(
        760,
        380,
        "The Forwarder",
        "A client asks the frontend. The frontend records the request in Redis and "
        "answers. The backend gives it its effect and the relay makes the connection to the outside. Flower "
        "watches, Beat sends a trigger.",
    )
    sheet.box(14, 70, 104, 54, "a client", "you, a workflow")
    sheet.box(176, 70, 128, 54, "frontend", "FastAPI, 7600", kind="here")
    sheet.box(362, 70, 128, 54, "Redis", "6379", kind="here")
    sheet.box(600, 70, 146, 54, "backend", "Celery, 7602", kind="here")
    sheet.arrow((118, 97), (176, 97), label="HTTP", both=True)
    sheet.arrow((304, 97), (362, 97), label="record")
    sheet.arrow((490, 97), (600, 97), label="task")
    sheet.box(600, 10, 146, 40, "Beat", kind="here")
    sheet.arrow((600, 30), (426, 30), (426, 70), label="trigger, every 30 s", at=(512, 18))
    sheet.box(176, 10, 128, 40, "Flower, 7601", kind="here")
    sheet.arrow((390, 70), (390, 30), (304, 30), label="events", at=(346, 18))
    sheet.box(362, 190, 128, 54, "desired", "what shall be", kind="here")
    sheet.arrow((673, 124), (673, 208), (490, 208), label="effect, once", at=(600, 196))
    sheet.box(362, 300, 128, 54, "relay", "a port a connection", kind="here")
    sheet.arrow((426, 244), (426, 300), label="reconcile", at=(462, 272))
    sheet.box(600, 300, 146, 54, "outside", "any address:port")
    sheet.arrow((490, 327), (600, 327), label="bytes", both=True)
    sheet.box(14, 300, 190, 54, "a program", "127.0.0.1:PORT")
    sheet.arrow((204, 327), (362, 327), label="bytes", both=True)
    sheet.arrow((362, 217), (240, 217), (240, 124), label="status", at=(268, 205))
    return sheet


def forwarder_cluster() -> Sheet:
    """Draw the Forwarder in a cluster, with the connections that its network policies allow."""
    sheet = Sheet(
        760,
        420,
        "The Forwarder in the cluster",
        "In the namespace forwarder the frontend, the backend, Flower and Beat use Redis; the backend makes Services "
        "in the namespace forwarder-imports. An import leads to an address outside, an export leads to a Service.",
    )
    sheet.box(14, 150, 104, 54, "your laptop", "7600 to 7602")
    sheet.lane(150, 10, 600, 214, "namespace forwarder, Pod Security restricted")
    sheet.box(176, 48, 150, 54, "flower-service", "flower-server, 7601", kind="here")
    sheet.box(376, 48, 150, 54, "beat-server", "applied apart", kind="here")
    sheet.box(582, 48, 152, 54, "postgres-service", "for chapter 10", kind="here")
    sheet.box(176, 150, 150, 54, "fastapi-service", "fastapi-server, 7600", kind="here")
    sheet.box(376, 150, 150, 54, "redis-service", "redis-server, a volume", kind="here")
    sheet.box(582, 150, 152, 54, "celery-service", "celery-server, 7602", kind="here")
    sheet.arrow((118, 177), (176, 177))
    sheet.arrow((118, 165), (136, 165), (136, 75), (176, 75))
    sheet.arrow((326, 75), (351, 75), (351, 165), (376, 165))
    sheet.arrow((326, 177), (376, 177))
    sheet.arrow((451, 102), (451, 150))
    sheet.arrow((582, 177), (526, 177))
    sheet.arrow((658, 204), (658, 262), label="makes them, by the API", at=(584, 243))
    sheet.lane(150, 262, 600, 146, "")
    sheet.text(738, 284, "namespace forwarder-imports: Services without pods", soft=True, anchor="end")
    sheet.box(14, 306, 104, 54, "outside")
    sheet.box(176, 306, 150, 54, "an export", "at a port of the node", kind="here")
    sheet.box(376, 306, 150, 54, "an import", "under a name", kind="here")
    sheet.box(582, 306, 152, 54, "any pod", "of the cluster")
    sheet.arrow((118, 333), (176, 333))
    sheet.arrow((251, 306), (251, 204), label="leads to a Service", at=(312, 243))
    sheet.arrow((582, 333), (526, 333))
    sheet.arrow((451, 360), (451, 388), (66, 388), (66, 360))
    return sheet


def airflow() -> Sheet:
    """Draw Airflow beside the Forwarder: who asks whom, and how a DAG gets there."""
    sheet = Sheet(
        760,
        330,
        "Airflow beside the Forwarder",
        "You ask Airflow's API server, or the Forwarder asks it for you. The scheduler runs tasks, the processor reads "
        "DAG files; both have them from git by git-sync. All three use the stack's Postgres.",
    )
    sheet.box(14, 60, 104, 54, "you", "8080, 7600")
    sheet.box(14, 236, 104, 54, "git push", "a DAG changes")
    sheet.lane(150, 10, 600, 310, "namespace forwarder")
    sheet.box(176, 48, 150, 54, "the Forwarder", "orch submit")
    sheet.box(376, 48, 150, 54, "API server", "port 8080", kind="here")
    sheet.box(582, 48, 152, 54, "postgres-service", "metadata database")
    sheet.box(376, 142, 150, 54, "scheduler", "runs the tasks", kind="here")
    sheet.box(582, 142, 152, 54, "DAG processor", "reads the files", kind="here")
    sheet.box(176, 236, 150, 54, "git server", "or your own", kind="here")
    sheet.box(376, 236, 150, 54, "git-sync", "every 15 s", kind="here")
    sheet.arrow((118, 75), (176, 75))
    sheet.arrow((118, 95), (146, 95), (146, 119), (410, 119), (410, 102))
    sheet.arrow((326, 75), (376, 75))
    sheet.arrow((526, 75), (582, 75))
    sheet.arrow((451, 142), (451, 102))
    sheet.arrow((526, 160), (554, 160), (554, 90), (582, 90))
    sheet.arrow((658, 142), (658, 102))
    sheet.arrow((118, 263), (176, 263))
    sheet.arrow((376, 263), (326, 263))
    sheet.arrow((451, 236), (451, 196))
    sheet.arrow((526, 263), (658, 263), (658, 196))
    return sheet


def ray_cluster() -> Sheet:
    """Draw Ray in a cluster: what Helm installs, what the operator makes of it, and the way of a job."""
    sheet = Sheet(
        760,
        300,
        "Ray in the cluster",
        "Helm installs two releases: the operator and the description of a Ray cluster. The operator makes from that a "
        "head pod and worker pods. A job goes through a tunnel to the head, which hands its tasks to the workers. The "
        "autoscaler beside the head asks the operator for a second worker when tasks wait.",
    )
    sheet.lane(10, 10, 180, 276, "your machine")
    sheet.box(26, 48, 148, 54, "helm", "charts and values", kind="here")
    sheet.box(26, 200, 148, 54, "a job", "localhost:8265", kind="here")
    sheet.lane(240, 10, 510, 276, "the cluster")
    sheet.box(256, 48, 190, 54, "kuberay-operator", "makes pods of descriptions", kind="here")
    sheet.box(544, 48, 190, 54, "RayCluster raycluster", "the description", kind="here")
    sheet.box(256, 176, 190, 96, "head", "jobs, dashboard: 8265", "autoscaler", kind="here")
    sheet.box(584, 164, 150, 50, "worker", "1 CPU", kind="here")
    sheet.box(584, 226, 150, 50, "a second worker", "when tasks wait", kind="planned")
    sheet.arrow((174, 66), (256, 66), label="release", at=(214, 54))
    sheet.arrow((174, 90), (215, 90), (215, 120), (639, 120), (639, 102), label="release", at=(500, 132))
    sheet.arrow((446, 75), (544, 75), label="watches", both=True)
    sheet.arrow((300, 102), (300, 176), label="makes", at=(326, 148))
    sheet.arrow((174, 227), (256, 227), label="tunnel", at=(214, 214))
    sheet.arrow((446, 190), (584, 190), label="tasks", at=(515, 178))
    sheet.arrow((446, 251), (584, 251))
    return sheet


def data_root() -> Sheet:
    """Draw the move of Docker's data: which folder counts at which step."""
    sheet = Sheet(
        720,
        170,
        "Moving Docker's data",
        "Docker is stopped, its data are copied, data-root is switched, Docker waits for the volume at boot, starts, "
        "and is verified. Until the switch the old folder counts, after it the new one; the old one is kept.",
    )
    names = ("stop", "copy", "switch", "wait", "start", "verify")
    under = ("Docker", "rsync", "data-root", "for the volume", "Docker", "docker info")
    for place, (name, what) in enumerate(zip(names, under, strict=True)):
        x = 10 + place * 118
        sheet.box(x, 20, 108, 50, name, what, kind="here" if name == "switch" else "")
        if place:
            sheet.arrow((x - 10, 45), (x, 45))
    sheet.lane(10, 90, 344, 66, "counts until the switch: /var/lib/docker")
    sheet.lane(364, 90, 344, 66, "counts from then on: /media/volume/docker")
    sheet.text(22, 136, "a reboot brings Docker back with it", soft=True)
    sheet.text(376, 136, "the old folder is kept until you delete it", soft=True)
    return sheet


def checkpoint() -> Sheet:
    """Draw how each section of a chapter goes."""
    sheet = Sheet(
        720,
        110,
        "Look, do, checkpoint",
        "A section looks at what is there, does a step and ends with a "
        "checkpoint: green goes on, red stops with the reason and a remedy.",
    )
    sheet.box(10, 30, 150, 50, "look", "what is there?")
    sheet.box(200, 30, 150, 50, "do", "one step")
    sheet.box(390, 30, 150, 50, "checkpoint", "is it true?", kind="here")
    sheet.arrow((160, 55), (200, 55))
    sheet.arrow((350, 55), (390, 55))
    sheet.arrow((540, 43), (582, 27))
    sheet.arrow((540, 67), (582, 83))
    sheet.text(590, 25, "✔ go on")
    sheet.text(590, 85, "✘ why, remedy")
    return sheet


def gpu_stack() -> Sheet:
    """Draw what stands between a program in a container and the GPU, and which chapter puts it there."""
    sheet = Sheet(
        760,
        236,
        "From a program to the GPU",
        "A program in a container brings CUDA's libraries. The container toolkit's runtime hands it the device and the "
        "driver's libraries of the host. The driver in the kernel speaks to the GPU. CUDA on the host compiles.",
    )
    sheet.lane(10, 10, 200, 216, "a container")
    sheet.box(26, 44, 168, 50, "a program", "TensorFlow, nbody, …", kind="here")
    sheet.box(26, 124, 168, 50, "CUDA's libraries", "from the image", kind="here")
    sheet.lane(236, 10, 514, 216, "the host")
    sheet.box(252, 84, 152, 56, "container toolkit", "Docker's runtime", kind="here")
    sheet.box(440, 84, 140, 56, "driver", "kernel and libraries", kind="here")
    sheet.box(616, 84, 118, 56, "GPU", "P100", kind="here")
    sheet.box(440, 164, 140, 46, "CUDA", "nvcc, to compile", kind="here")
    sheet.arrow((110, 94), (110, 124))
    sheet.arrow((194, 149), (223, 149), (223, 112), (252, 112))
    sheet.arrow((404, 112), (440, 112))
    sheet.arrow((580, 112), (616, 112))
    sheet.arrow((510, 164), (510, 140))
    return sheet


DRAWINGS: tuple[Callable[[], Sheet], ...] = (
    system_map,
    ways_to_use,
    setup_steps,
    gpu_shares,
    cpouta,
    node_port,
    gpu_stack,
    ssh_tunnel,
    forwarder,
    forwarder_cluster,
    airflow,
    ray_cluster,
    data_root,
    checkpoint,
)


def build(folder: Path) -> list[Path]:
    """Write every drawing: `NAME.svg`, which stands alone, and `NAME.html`, which a page includes.

    Args:
        folder: Where to.

    Returns:
        The files.
    """
    files = []
    for draw in DRAWINGS:
        svg = draw().drawing.as_svg(header="").strip() + "\n"
        inline = f'<div class="t-drawing-box">\n{svg[svg.index("<svg") :]}</div>\n'
        for suffix, text in ((".svg", svg), (".html", inline)):
            path = folder / f"{draw.__name__}{suffix}"
            write_atomically(path, text)
            files.append(path)
    return files
