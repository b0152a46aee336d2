"""A page made of every part of templates/parts.html, filled with HTML as text."""

import jinja2
import pytest
from matplotlib.figure import Figure

from experiments.pages import environment, render, svg_of

EVIL = """<script>document.title='bad'</script><img src=x onerror="document.title='bad'">&amp;'"</pre></table>"""
SAMPLE = """{% extends "base.html" %}
{% import "parts.html" as parts %}
{% block content %}
<h2>{{ text }}</h2><p>{{ text }}</p><pre>{{ text }}</pre><details><summary>{{ text }}</summary><p>inside</p></details>
{{ parts.table([text, "value"], rows + [[text, "n/a"]], text) }}
{{ parts.table(["wide " * 9] * 9, [["x" * 40] * 9]) }}
{{ parts.table(["a"], [[0.123456789], [None], [3]]) }}
{{ parts.figure(plot, "svg", text, text) }}
{% endblock %}"""


def sample_page() -> str:
    made = environment()
    made.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"sample.html": SAMPLE}), made.loader])
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2, 3], [2, 1, 3])
    rows = [["b", "10.5 ± 0.1"], ["a", "9.25 (1 seed)"], ["d", None], ["c", "1,000"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.pages.environment", lambda: made)
        return render("sample.html", title=EVIL, text=EVIL, plot=svg_of(figure), rows=rows)
