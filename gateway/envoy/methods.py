"""A known path with another method: 405 and what the path takes, instead of a 404 that denies the path.

The transcoder would say 404 for both. These routes stand last and catch what it will not make a call of; a request that
it will is never among them.
"""

import re
from collections import defaultdict

from gateway.contracts import rpcs
from gateway.envoy.names import API_KEY, LIMIT, TOKEN, TRANSCODER, Config, of_type
from gateway.refusals import METHOD_NOT_ALLOWED_STATUS

_VARIABLE = re.compile(r"\{[^}]*\}")
# the part after a colon is no part of a last variable: it names what to do, and may be no known one
_INNER, _LAST = "[^/]+", "[^/:]+"


def refused_methods() -> list[Config]:
    """A route for each path: it answers all methods but the path's own.

    Not one for all, which would be more than Envoy lets a regular expression be."""
    verbs_of: dict[str, set[str]] = defaultdict(set)
    for rpc in rpcs():
        for binding in rpc.bindings:
            verbs_of[pattern(binding.template)].add(binding.verb)
    return [_route(path, tuple(sorted(verbs))) for path, verbs in sorted(verbs_of.items())]


def pattern(template: str) -> str:
    """The paths of a template of `google.api.http`, as a regular expression."""
    inner, slash, last = template.rpartition("/")
    return _filled(inner, _INNER) + slash + _filled(last, _LAST)


def _filled(part: str, variable: str) -> str:
    return variable.join(re.escape(each) for each in _VARIABLE.split(part))


def _route(path: str, verbs: tuple[str, ...]) -> Config:
    allowed = ", ".join(verbs)
    # Envoy looks at the headers first, so that most paths cost no more than this comparison
    own_method = {"safe_regex": {"regex": "|".join(verbs)}} if len(verbs) > 1 else {"exact": allowed}
    return {
        "name": f"gateway.only.{'.'.join(verbs).lower()}",
        "match": {
            "safe_regex": {"regex": path},
            "headers": [{"name": ":method", "string_match": own_method, "invert_match": True}],
        },
        "direct_response": {"status": METHOD_NOT_ALLOWED_STATUS, "body": {"inline_string": allowed}},
        "response_headers_to_add": [{"header": {"key": "allow", "value": allowed}}],
        "typed_per_filter_config": {
            TRANSCODER: of_type(
                "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder", proto_descriptor_bin=""
            ),
            # nothing is done for anybody here: who calls, and how often, is not asked
            TOKEN: of_type("envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", disabled=True),
            API_KEY: of_type("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", disabled=True),
            LIMIT: of_type("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", disabled=True),
        },
    }
