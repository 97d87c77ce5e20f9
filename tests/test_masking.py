"""Secrets are replaced, words are not: a table of real-world texts of both kinds."""

import base64
import json
import random
import time

import pytest

from helpers.errors import mask
from helpers.masking import mask_command, mask_notebook
from helpers.target_local import run_here

pytestmark = pytest.mark.unit

S = "hunter2!Zq9"  # the secret in the texts below; none of it may be shown
PEM = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7hunter2"
LOGIN = base64.b64encode(b"reader:hunter2").decode()
KEY = base64.b64encode(b"-----BEGIN RSA PRIVATE KEY-----\nhunter2hunter2hunter2\n").decode()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.4pcPyMD09olPSyXnrXCjTwXyr4BsezdI1AVTmud2fU4"

SECRETS = {
    # environments and command lines
    f"AWS_SECRET_ACCESS_KEY={S}": S,
    f"export FORWARDER_SIGNING_KEY='{S}'": S,
    "AIRFLOW__CORE__FERNET_KEY=/hx7+Zq9hunter2A2b4c6d8e0f1a3b5c7d9e=": "hunter2",
    "FLOWER_PASSWORD=correct horse, battery; staple": "horse",
    "      REDIS_PASSWORD:  swordfish\n      Mounts:": "swordfish",
    "PGPASSWORD=swordfish psql -h db": "swordfish",
    "helm install x --set auth.password=swordfish,replicas=2": "swordfish",
    "kubectl create secret generic x --from-literal=token=swordfish": "swordfish",
    "openstack --os-password swordfish server list": "swordfish",
    f"kubeadm join --token={S} 10.0.0.1:6443": S,
    f"['redis-cli', '--password', '{S}', 'ping']": S,
    "sshpass -p 'swordfish' ssh host": "swordfish",
    f"docker login -u me -p {S} registry.example.org": S,
    f"mysql -u root -p{S} forwarder": S,
    f"curl -u admin:{S} http://127.0.0.1:7601/api/tasks": S,
    "STRIPE_KEY=swordfish": "swordfish",
    "flower --basic-auth=admin:swordfish": "swordfish",
    "redis-server --requirepass swordfish": "swordfish",
    f"the first password is {S}": S,
    'PASSWORD="a b c"': "a b c",
    # addresses
    "postgresql://user:p@ss/w0rd@db.example.org:5432/airflow": "w0rd",
    "redis://:swordfish@redis-service:6379/0": "swordfish",
    "mongodb+srv://me:swordfish@cluster0.example.org/?retryWrites=true": "swordfish",
    f"https://example.org/logs?page=2&access_token={S}&x=1": S,
    f"GET /?token={S} HTTP/1.1": S,
    "https://s3.example.org/b/k?X-Amz-Expires=60&X-Amz-Signature=fe5f80f77d5fa3be": "fe5f80f77d5fa3be",
    "https://blob.example.org/c?sv=2024&sig=Zq9hunter2%2Bx%3D": "hunter2",
    # headers
    f"Authorization: Bearer {S}": S,
    'Authorization: Digest username="me", realm="x", response="6629fae49393a05397450978507c4ef1"': "6629fae49393",
    f"> Proxy-Authorization: Basic {LOGIN}": LOGIN,
    f"sent 'Basic {LOGIN}' to the proxy": LOGIN,
    f"Cookie: theme=dark; session={S}": S,
    f"Set-Cookie: _xsrf={S}; Path=/": S,
    f"X-Auth-Token: {S}": S,
    f"{{'X-Api-Key': '{S}'}}": S,
    # JSON, YAML and others
    f'{{"id": 7, "token": "{S}", "ok": true}}': S,
    f'"body": "{{\\"access_token\\": \\"{S}\\", \\"expires\\": 60}}"': S,
    f"&quot;password&quot;: &quot;{S}&quot;": S,
    '"password": "say \\"hunter2\\" twice"': "hunter2",
    "clouds:\n  cpouta:\n    auth:\n      application_credential_secret: swordfish\n      auth_url: x": "swordfish",
    "password: |\n  swordfish\n  trout\nuser: me": "trout",
    f"- name: FLOWER_PASSWORD\n  value: {S}": S,
    f'{{"name": "REDIS_PASSWORD", "value": "{S}"}}': S,
    "data:\n  tls.crt: aHVudGVyMg==\n  url: aHVudGVyMg==\nkind: Secret\nmetadata:\n  name: x": "aHVudGVyMg",
    '{"apiVersion": "v1", "data": {"url": "aHVudGVyMg=="}, "kind": "Secret"}': "aHVudGVyMg",
    f'{{"auths": {{"registry": {{"auth": "{LOGIN}"}}}}}}': LOGIN,
    f"client-key-data: {KEY}": KEY[:60],
    f"tls.key: {KEY}": KEY[:60],
    "<password>swordfish</password>": "swordfish",
    "connect(user='me', password=b'swordfish')": "swordfish",
    'password: str = "swordfish"': "swordfish",
    "machine example.org login me password swordfish": "swordfish",
    "ALTER USER forwarder WITH PASSWORD 'swordfish';": "swordfish",
    "Server=db;Uid=me;Pwd=swordfish;": "swordfish",
    # logs, tables and code of the course's programs
    f"Simple auth manager | Password for user 'admin': {S}": S,
    "| secret       | kVX9pLm2nQ8rT4wY6zA1bC3dE5fG7hJ9 |": "kVX9pLm2",
    "+----+\n| adminPass | swordfish |\n+----+": "swordfish",
    "chpasswd:\n  expire: false\n  list: |\n    root:swordfish\n    ubuntu:trout": "trout",
    "--set data.metadataConnection.pass=swordfish": "swordfish",
    "metadataConnection:\n  user: me\n  pass: swordfish\n  port: 5432": "swordfish",
    "Step 3/5 : ENV SECRET_KEY swordfish": "swordfish",
    "echo swordfish | docker login --password-stdin -u me": "swordfish",
    "echo 'swordfish' | sudo -S apt update": "swordfish",
    "ssh-keygen -q -t ed25519 -N swordfish -f key": "swordfish",
    "openssl rsa -passin pass:swordfish -in key": "swordfish",
    "requests.get(url, auth=('me', 'swordfish'))": "swordfish",
    "HTTPBasicAuth('me', 'swordfish')": "swordfish",
    "os.environ.setdefault('API_TOKEN', 'swordfish')": "swordfish",
    "[('host', 'db'), ('password', 'swordfish')]": "swordfish",
    "SET PASSWORD FOR 'me'@'%' = 'swordfish'": "swordfish",
    "127.0.0.1:6379> AUTH default swordfish": "swordfish",
    ".dockerconfigjson: eyJhdXRocyI6e319": "eyJhdXRocyI6e319",
    f'_auth = "{LOGIN}"': LOGIN,
    "https://hooks.slack.com/services/T00000000/B00000000/Zq9hunter2Zq9hunter2Zq": "hunter2",
    "GET https://api.telegram.org/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe": "AAHdqTcvCH1v",
    # forms
    "remote: ghp_16C7e42F292c6912E7710c838347Ae178B4a is no key": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789": "mnopqrstuvwxyz",
    "glpat-Zq9hunter2Zq9hunter": "hunter2",
    "xoxb-123456789012-hunter2": "hunter2",
    "key AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    f"got {JWT} back": JWT,
    "sk-proj-Zq9hunter2Zq9hunter2": "hunter2",
    "hf_Zq9hunterZq9hunterZq9": "Zq9hunter",
    f"gAAAAAB{9 * 'lZq9hunter2'}==": "hunter2",
    "AGE-SECRET-KEY-1QQQHUNTERQQQHUNTERQQQHUNTER": "HUNTER",
    f"-----BEGIN PRIVATE KEY-----\n{PEM}\n-----END PRIVATE KEY-----": PEM,
    f"{PEM}\n{PEM}\n-----END EC PRIVATE KEY-----": PEM,
    f"Private-Lines: 2\n{PEM}\n{PEM}\nPrivate-MAC: 8b3f9c": PEM,
}
TEXTS = (
    "Flower asks for basic authentication",
    "The server offers Basic and Bearer authentication",
    "WWW-Authenticate: Basic realm=\"Restricted\"",
    "Bearer token missing",
    "Authorization: Bearer <token>",
    "Authorization header missing",
    "automountServiceAccountToken: false",
    "secretName: redis-secret",
    "secretKeyRef: {name: fastapi-secret, key: token, optional: true}",
    "valueFrom:\n  secretKeyRef:\n    name: redis-secret\n    key: password",
    "tokenExpirationSeconds: 3600",
    "password: null",
    'password: ""',
    "password: true",
    "existingSecret: redis-secret",
    "imagePullSecrets:\n- name: registry-credentials",
    "token is invalid",
    "the password is wrong, and the token has expired",
    "password: must have eight characters",
    "Error: token: required",
    "max_tokens: 100",
    "num_tokens=512, tokens per second: 40",
    "API_KEY is not set",
    "API_KEY: not set",
    "KEY=value",
    "primary_key: id",
    "public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHunterTwo12 me@laptop",
    "the public key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHunterTwo12",
    "ssh key fingerprint: SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
    "private key: ~/.ssh/cpouta.pem",
    "FLOWER_PASSWORD: <set to the key 'password' in secret 'flower-secret'>  Optional: false",
    "password:  24 bytes",
    'echo "$FLOWER_PASSWORD" | docker login --password-stdin -u me',
    "--token=$TOKEN --password \"$PASSWORD\"",
    "give --password or --token to log in",
    "use --token is not possible here",
    "*** was here, token: ***, password=***",
    "redis://:***@127.0.0.1:6379",
    "http://127.0.0.1:7600/path/@user and https://registry:5000/v2/@latest",
    "git@github.com:CSCfi/docs.git, ssh://git@example.org/x",
    "kubernetes.io/service-account-token",
    "docker run -u 1000:1000 -p 8080:80 nginx",
    "unexpected token: identifier",
    "PASSWORD=",
    "kind: Secret",
    "kind: ConfigMap\ndata:\n  url: http://fastapi-service:7600",
    "Secret redis-secret: unchanged",
    "def login(name: str, password: str, token: str | None = None)",
    "token = get_token(); password = self._password()",
    "{{ .Values.auth.password }} and ${REDIS_PASSWORD}",
    "hf_hub_download and sk-learn-contrib-something-else",
    "cookie: a small text that a browser keeps",
    "authorization: RBAC, --authorization-mode=Node,RBAC",
    "secret: redis-secret",
    "flower-secret password=?",
    "password=*** user=me",
    "password:      # set it",
    "SORT_KEY=created_at",
    "token_count=1000, eos_token: </s>, pass: 12, fail: 3",
    "[sudo] password for ubuntu:",
    "[sudo] password for ubuntu: \nSorry, try again.",
    "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
    "passwd: password expiry information changed.",
    "master_password = var.db_password",
    "password = random_password.db.result",
    'password = data.vault_generic_secret.db.data["password"]',
    "    api_key = os.environ['API_KEY']",
    'password=os.environ["DB_PASSWORD"],',
    "if not token: return",
    "INFO token: renewed",
    "idempotency_key: 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    "passwordSecretKey: redis-password",
    "pull secret: regcred",
    "| password | None |\n| user | password | host |",
    "isinstance(token, str), ('password', 'required')",
    "PWD=/home/reader OLDPWD=/tmp",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)  # fmt: skip


@pytest.mark.parametrize("text", SECRETS)
def test_the_secret_is_replaced(text: str) -> None:
    shown = mask(text)
    assert SECRETS[text] not in shown and "***" in shown
    assert mask(shown) == shown, "masking twice changes nothing more"


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert mask(text) == text


def test_only_the_value_goes() -> None:
    assert mask(f'{{"id": 7, "token": "{S}", "ok": true}}') == '{"id": 7, "token": "***", "ok": true}'
    assert mask("redis://:swordfish@host:6379/0") == "redis://***:***@host:6379/0"
    assert mask(f"a --token {S} b") == "a --token *** b"
    secret = "kind: Secret\nmetadata:\n  name: x\ndata:\n  a: aHVudGVyMg==\n---\nkind: ConfigMap\ndata:\n  b: c\n"
    assert mask(secret) == secret.replace("aHVudGVyMg==", "***")


def test_a_notebook_stays_one() -> None:
    image = {"image/png": "iVBOR/gAAAAAB" + 70 * "a"}
    outputs = [
        {"output_type": "stream", "text": ['FLOWER_PASSWORD=a, "b"\n', "next\n"]},
        {"output_type": "display_data", "data": {"text/html": '<pre>\nX_TOKEN=abc</pre>"', **image}},
        {"output_type": "error", "traceback": ["password='swordfish'", 'Authorization: Digest a="b", c="d"']},
    ]
    cells = [{"cell_type": "code", "source": ["token = 'swordfish'\n", "print(1)"], "outputs": outputs}]
    shown = json.loads(mask_notebook(json.dumps({"cells": cells, "nbformat": 4})))
    (cell,) = shown["cells"]
    assert cell["source"] == ["token = '***'\n", "print(1)"]
    assert [o.get("text") for o in cell["outputs"]][0] == ['FLOWER_PASSWORD=***"\n', "next\n"]
    assert cell["outputs"][1]["data"] == {"text/html": '<pre>\nX_TOKEN=***</pre>"', **image}
    assert cell["outputs"][2]["traceback"] == ["password='***'", 'Authorization: Digest ***"']
    shown = json.loads(mask_notebook(json.dumps({"cells": cells, "nbformat": 4}), sources=False))
    assert shown["cells"][0]["source"] == cells[0]["source"] and "***" in str(shown["cells"][0]["outputs"])
    assert mask_notebook("token: abcdef") == "token: ***"


def test_a_command_keeps_its_words() -> None:
    words = ["helm", "--kube-token", "sword fish", "--password", "--x", "-p", "1", "--set=a.password=bb c", "token"]
    assert mask_command(words) == [
        "helm", "--kube-token", "***", "--password", "--x", "-p", "1", "--set=a.password=*** c", "token"
    ]  # fmt: skip


def test_what_a_command_prints_while_it_runs_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    run_here(["echo", f"API_TOKEN={S}"], stream=True)
    assert capsys.readouterr().out == "API_TOKEN=***\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENG"), ("MY_OTHER_KEY", "0f1a3b5c7d9e0f1a3b5c"), ("X_TOKEN", "s3cr"),
     ("FLOWER_PASSWORD", "correct horse"), ("GITLAB_PASS", "swordfish"), ("DB_PWD", "swordfish")],
)  # fmt: skip
def test_values_of_secret_variables_go_wherever_they_stand(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert mask(f"it said: {value}, you see") == "it said: ***, you see"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PASSWORD", "true"), ("TOKEN", "1"), ("API_TOKEN", "none"), ("SECRET", "the"), ("SORT_KEY", "cluster"),
     ("FLOWER_PASSWORD", "password"), ("PUBLIC_KEY", "0f1a3b5c7d9e0f1a3b5c"), ("PWD", "/home/cluster"),
     ("DB_PASSWORD", "admin"), ("SSH_KEY", "/home/reader/.ssh/id_ed25519")],
)  # fmt: skip
def test_ordinary_values_blank_out_no_text(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    text = f"1 cluster is true, none is the admin's; the password 0f1a3b5c7d9e0f1a3b5c, {value} in /home/cluster"
    assert mask(text) == text


def test_a_secret_within_a_longer_word_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "forward")
    assert mask("the forwarder goes forward") == "the forwarder goes ***"


@pytest.mark.parametrize(
    "unit",
    ["a", "ab12", "x ", "token", "token: ", "password=a ", "-a", "a-", '\\"', "http://a:", "a\n", "  \n", "_key", "eyJ",
     "name: x_token\n", "kind: Secret\ndata:\n  a: b\n---\n", f"{PEM}\n", "https://x/?a=b&", "LS0tLS1CRUdJTi",
     "curl -u ", "cookie: ", '{"data": {"a": ', "sk-"],
)  # fmt: skip
def test_long_texts_take_no_time(unit: str) -> None:
    text = (unit * (200_000 // len(unit))) + " -----END PRIVATE KEY-----"
    started = time.process_time()
    mask(text)
    assert time.process_time() - started < 2


def test_a_megabyte_of_log_takes_a_second() -> None:
    chance = random.Random(1)
    words = [*(w for text in TEXTS for w in text.split()), "INFO", "2026-01-01", "10.0.0.1", "forwarder", "=", ":"]
    lines = [" ".join(chance.choices(words, k=12)) for _ in range(12_000)]
    text = "\n".join(lines)
    started = time.process_time()
    mask(text)
    assert time.process_time() - started < 6 * len(text) / 1e6
