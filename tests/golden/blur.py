"""Replaces what differs from run to run (ids, times, serial numbers, keys, tokens, paths) by the placeholders of expected.json."""
import re

# Order matters: the more specific pattern comes first.
TEXT = [
    (re.compile(pattern), placeholder)
    for pattern, placeholder in (
        (r"-----BEGIN ([A-Z ]+)-----[A-Za-z0-9+/=\s\\n]+-----END \1-----", r"<pem \1>"),
        (r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "<jwt>"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d| UTC|Z)?( UTC)?( m=[+-][\d.]+)?", "<time>"),
        (r"(?i)(serial number\s+: )\d+", r"\1<serial>"),
        (r"after [\d.]+(ns|µs|us|ms|s)", "after <duration>"),
        (r"(?i)(uptime\s*: )\S+", r"\1<duration>"),
        (r"\b[0-9a-f]{40}\b", "<keyid>"),
        (r"(Uptime:\s+)\S+", r"\1<duration>"),
        (r"(Cached X.509 SVIDs:\s+)\d+", r"\1<n>"),
        (r"(\"(?:kid|x|y|n)\": \")[\w-]+", r"\1<key>"),
        (r"SERIALNUMBER=\d+", "SERIALNUMBER=<serial>"),
        (r"((?:public key|Authority ID:?|authority_id\\?\":) ?\\?\"?)[A-Za-z0-9]{32}\b", r"\1<jwtkey>"),
        (r"(\"(?:exp|iat)\": ?)\d+", r"\1<volatile>"),
        (r"(Agent version\s+: )\S+", r"\1<version>"),
        (r":\d{5}\b", ":<port>"),
        # Some builds of SPIRE print a space behind the commas of claims, some do not.
        (r"(?m)^Claims    : .*$", lambda line: re.sub(r',(?=")', ", ", line[0])),
    )
]
VOLATILE = re.compile(
    r"(^|_)(expires_at|created_at|issued_at|serial|uptime|last_sync|not_after|iat|exp)"
    r"|x509svid_expires_at|serial_number|^(cached_x509_)?svids_count$",
    re.I,
)
KEYS = {"key_id", "kid", "n", "x", "y", "authority_id"}
BASE64 = re.compile(r"[A-Za-z0-9+/_=-]{40,}")


def blur_text(text, directory):
    text = text.replace(directory, "<dir>")
    for pattern, placeholder in TEXT:
        text = pattern.sub(placeholder, text)
    return text


def blur_json(value, directory, key=""):
    if isinstance(value, dict):
        return {k: blur_json(v, directory, k) for k, v in value.items()}
    if isinstance(value, list):
        return [blur_json(v, directory, key) for v in value]
    if isinstance(value, (int, float, str)) and not isinstance(value, bool) and VOLATILE.search(key):
        # An uptime of 0 is a fast run, a time of 0 is "not set".
        return value if value in (0, "0", "") and key != "uptime" else "<volatile>"
    if not isinstance(value, str):
        return value
    if key == "agent_version":
        return "<version>"
    if key in KEYS:
        return "<key>"
    text = blur_text(value, directory)
    if text == value and BASE64.fullmatch(value) and not value.startswith("spiffe"):
        return "<b64>"
    return text
