"""The report's frame, and the meaning of its measures; `report.css` is its style, in light, in dark and on paper."""

import html
from pathlib import Path

GLOSSARY = {
    "GAP@20": "Global average precision: every video's 20 best classes in one list, best first; the area under the "
    "curve of precision and recall along it. The challenge's measure.",
    "Hit@1": "Share of videos whose likeliest class is one of their labels.",
    "PERR": "Precision at equal recall rate: of as many best classes as a video has labels, the share that are labels; "
    "mean over the videos.",
    "MAP": "Mean over the classes of the area under the class's own precision–recall curve, within the videos' 20 best "
    "classes. Classes without a label count 0; “of classes present” leaves them out.",
    "loss": "Cross entropy summed over classes, mean over videos. The only one that is better when lower.",
    "precision, recall, F1": "Of the classes that reach their thresholds: the share that are labels; of the labels the "
    "share that is given; and the harmonic mean of the two. Over all pairs of a video and a class (micro), or the mean "
    "over classes with labels (macro).",
    "interval": "Where 95% of the figures lie when as many videos are drawn again at random, with replacement. Two "
    "models whose intervals overlap may still differ surely: topgb compare says so. MAP's interval "
    "lies a little high: a video that is drawn twice makes rare classes look easier.",
    "reliability": "Where a model says 0.7, seven of ten should be labels. Points below the line: too sure of itself.",
}

STYLE = Path(__file__).with_name("report.css")


def page(title: str, body: str) -> str:
    """The HTML document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Browsers ask for an icon unless the page says that there is none.
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>\n'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def glossary() -> str:
    """The measures and their meaning."""
    entries = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in GLOSSARY.items())
    return f"<h2>What the measures mean</h2><dl>{entries}</dl>"
