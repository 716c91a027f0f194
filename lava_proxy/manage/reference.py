"""The reference page: the OpenAPI description for people, one page that loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import ChainableUndefined, Environment

from lava_proxy.manage.call import Answer, Call, Handler
from lava_proxy.manage.desk import Desk

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }} {{ info.version }}: API reference</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem;
       color: #1b1b1b; background: #fff }
h2 { border-top: 1px solid #999; padding-top: 1rem; margin-top: 2rem }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0;
         border-bottom: 1px solid #ddd }
a { color: #0645ad }
nav ul { columns: 2; padding-left: 1rem }
@media (max-width: 40rem) { nav ul { columns: 1 } }
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #161616 } a { color: #8ab4f8 }
  th, td { border-color: #444 }
}
</style>
</head>
<body>
<header>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>{{ info.description }} As data: <a href="openapi.json">openapi.json</a>.</p>
</header>
{% macro kind(schema) -%}
{%- if schema["$ref"] -%}
<a href="#{{ schema["$ref"].rsplit("/", 1)[1] }}">{{ schema["$ref"].rsplit("/", 1)[1] }}</a>
{%- elif schema.anyOf -%}
{%- for one in schema.anyOf %}{{ kind(one) }}{% if not loop.last %} or {% endif %}{% endfor -%}
{%- elif schema.enum -%}
{%- for one in schema.enum %}<code>{{ one }}</code>{% if not loop.last %}, {% endif %}{% endfor -%}
{%- elif schema.const is defined -%}<code>{{ schema.const }}</code>
{%- elif schema.type == "array" -%}list of {{ kind(schema["items"]) }}
{%- else -%}
{{ schema.type or "anything" }}{% if schema.format %} ({{ schema.format }}){% endif %}
{%- if schema.pattern %} <code>{{ schema.pattern }}</code>{% endif -%}
{%- if schema.default is defined and schema.default is not none %},
default <code>{{ schema.default }}</code>{% endif -%}
{%- endif -%}
{%- endmacro %}
<nav aria-label="Routes">
<ul>
{% for path, methods in paths.items() %}{% for method, operation in methods.items() %}
{% set base = (operation.servers or servers)[0].url.rstrip("/") %}
<li><a href="#{{ operation.operationId }}">
<code>{{ method|upper }} {{ base }}{{ path }}</code></a></li>
{% endfor %}{% endfor %}
</ul>
</nav>
<main>
{% for path, methods in paths.items() %}{% for method, operation in methods.items() %}
<section id="{{ operation.operationId }}">
{% set base = (operation.servers or servers)[0].url.rstrip("/") %}
<h2><code>{{ method|upper }} {{ base }}{{ path }}</code></h2>
<p>{{ operation.summary }}</p>
{% if not operation.security %}<p>Needs no credential.</p>{% endif %}
{% if operation.parameters %}
<table>
<caption hidden>Parameters</caption>
<thead>
<tr><th scope="col">Parameter</th><th scope="col">In</th><th scope="col">What</th></tr>
</thead>
<tbody>
{% for one in operation.parameters %}
<tr><td><code>{{ one.name }}</code>{% if one.required %} (required){% endif %}</td>
<td>{{ one["in"] }}</td><td>{{ one.description }} {{ kind(one.schema) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
{% if operation.requestBody and operation.requestBody.content["application/json"].schema %}
<p>Body: {{ kind(operation.requestBody.content["application/json"].schema) }}</p>
{% endif %}
<table>
<caption hidden>Answers</caption>
<thead><tr><th scope="col">Status</th><th scope="col">Answer</th></tr></thead>
<tbody>
{% for status, answer in operation.responses.items() %}
<tr><td>{{ status }}</td><td>
{%- if answer.content["application/json"] and status[0] == "2" -%}
{{ kind(answer.content["application/json"].schema) }}
{%- else %}{{ answer.description|replace("`", "") }}{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</section>
{% endfor %}{% endfor %}
<h2 id="objects">Objects</h2>
{% for name, schema in components.schemas.items() %}
<section id="{{ name }}">
<h3>{{ name }}</h3>
{% if schema.description %}<p>{{ schema.description }}</p>{% endif %}
{% if schema.properties %}
<table>
<caption hidden>Members of {{ name }}</caption>
<thead><tr><th scope="col">Member</th><th scope="col">What</th></tr></thead>
<tbody>
{% for member, what in schema.properties.items() %}
<tr><td><code>{{ member }}</code>
{%- if member not in (schema.required or []) %} (optional){% endif %}</td>
<td>{{ kind(what) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""


def render(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document."""
    environment = Environment(autoescape=True, trim_blocks=True, undefined=ChainableUndefined)
    return environment.from_string(_PAGE).render(**document)


def served(document: Mapping[str, Any]) -> Handler:
    """The handler of ``GET /v1/docs``."""
    page = render(document).encode()

    async def docs(desk: Desk, call: Call) -> Answer:
        """The reference page, for people."""
        headers = {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": _POLICY,
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        return Answer(200, page, headers)

    return docs
