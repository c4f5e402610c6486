"""What is masked wherever it stands, and what is not because it tells nothing."""

import base64
import json
import time

import pytest

from repro.core.answer import Answer, CellInfo, ModelInfo
from repro.core.encoding import replace
from repro.core.payloads import Files
from repro.core.records import Case, Outcome
from repro.report.privacy.machine import Private, private_words, scope
from repro.report.privacy.redact import redact, redact_json

NOBODY = Private()
KEY = "-----{} RSA PRIVATE KEY-----\nMIIEow+IBAAK/CAQEA\nq1==\n-----{} RSA PRIVATE KEY-----".format("BEGIN", "END")
SHA = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
COMMIT = "cf30153c4c131c8164ee7798e5022d810682e2cb"
FORMS = {
    "Hub": ("hf_", "aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567"),
    "Hub, organisation": ("api_org_", "aBcDeFgHiJkLmNoPqRsTuVwXyZ"),
    "AWS": ("AKIA", "IOSFODNN7EXAMPLE"),
    "AWS, temporary": ("ASIA", "IOSFODNN7EXAMPLE"),
    "Google": ("AIza", "SyD-0123456789abcdefghijklmnopqrstu"),
    "Google, access": ("ya29.", "a0AfH6SMBx1234567890abcdef"),
    "GitHub": ("ghp_", "16C7e42F292c6912E7710c838347Ae178B4a"),
    "GitHub, app": ("ghs_", "16C7e42F292c6912E7710c838347Ae178B4a"),
    "GitHub, user": ("ghu_", "16C7e42F292c6912E7710c838347Ae178B4a"),
    "GitHub, fine": ("github_pat_", "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz"),
    "GitLab": ("glpat-", "aBcDeFgHiJkLmNoPqRsT"),
    "PyPI": ("pypi-", "AgEIcHlwaS5vcmcCJDAwMDAwMDAw"),
    "OpenAI": ("sk-", "proj-aBcDeFgHiJkLmNoP1234"),
    "Anthropic": ("sk-", "ant-api03-aBcDeFgHiJkLmNoP1234"),
    "Slack": ("xoxb-", "123456789012-abcdefghijkl"),
    "JWT": ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"),
    "npm": ("npm_", "aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"),
    "private key": ("", KEY),
}
"""Prefix and rest, apart, so that no scanner takes them for leaked; none of them opens anything."""
SECRETS = {name: prefix + rest for name, (prefix, rest) in FORMS.items()}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "around", ["{}", "token: {} and more", '"{}"', "x={}", "({})", "https://example.org/?a=1&t={}"]
)
def test_a_credential_is_masked_by_its_form(secret, around):
    masked = redact(around.format(secret), NOBODY)
    assert secret not in masked
    assert "TOKEN" in masked
    assert not any(part in masked for part in secret.split() if len(part) > 10)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = TOKEN"),
        ("AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "TOKEN TOKEN"),
        ("AccountName=me;AccountKey=abcdefgh12345678+/==;End=1", "AccountName=me;AccountKey=TOKEN;End=1"),
        ("https://x.github.io/c?sv=2022&sig=abc%2Bdef123456789%3D", "https://x.github.io/c?sv=2022&sig=TOKEN"),
        ("https://hf.co/a?X-Amz-Credential=x%2Fy&X-Amz-Signature=0", "https://hf.co/a?X-Amz-Credential=TOKEN&X-Amz-Signature=TOKEN"),
        ("https://me:p@ss@github.com/x", "https://TOKEN@github.com/x"),
        ("https://0123456789abcdef@github.com/x", "https://TOKEN@github.com/x"),
        ('{"private_key_id": "0123456789abcdef0123"}', '{"private_key_id": "TOKEN"}'),
        ("authorization: Basic dXNlcjpwYXNzd29yZA==", "authorization: Basic TOKEN"),
        ("Proxy-Authorization: Digest username=x", "Proxy-Authorization: Digest TOKEN"),
        ("use Basic dXNlcjpwYXNzd29yZA==", "use Basic TOKEN"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer TOKEN"),
        ("MY_SERVICE_TOKEN=abcdefgh1234", "MY_SERVICE_TOKEN=TOKEN"),
        ("password: correct-horse", "password: TOKEN"),
        ("Set-Cookie: session=1; Path=/", "Set-Cookie: TOKEN"),
        ("machine h login me password hunter2", "machine h login me password TOKEN"),
    ],
)  # fmt: skip
def test_a_credential_is_masked_by_its_name(text, masked):
    assert redact(text, NOBODY) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail jane.doe@mail.example.org now", "mail MAIL now"),
        ("listening on 10.1.2.3:8080", "listening on IP:8080"),
        ("MASTER_ADDR=192.168.0.17", "MASTER_ADDR=IP"),
        ("at 203.0.113.7.", "at IP."),
        ("fe80::1ff:fe23:4567:890a", "IP"),
        ("[2001:db8::8a2e:370:7334]:80", "[IP]:80"),
        ("link 00:1A:2b:3c:4D:5e up", "link MAC up"),
        ("https://artifacts.corp.example/simple", "https://HOST/simple"),
        ("http://squid:3128", "http://HOST:3128"),
        ("ssh://git@code.internal:22/x", "ssh://TOKEN@HOST:22/x"),
    ],
)
def test_an_address_is_masked(text, masked):
    assert redact(text, NOBODY) == masked


@pytest.mark.parametrize(
    "text",
    [
        "model.layers.7.self_attn.q_proj.weight",
        "torch 2.13.0+cpu, transformers 5.23.0, Python 3.11.7",
        "nvidia-cudnn-cu12==9.10.2.21",
        "`nvidia-curand-cu12` 10.3.9.90, 10.3.7.77",
        "cudnn 9.10.2.21 and driver version 1.2.3.4",
        "torch-1.2.3.4 of torch-1.2.3.4-py3-none-any.whl",
        "Windows 10.0.19045.3803",
        SHA,
        f"kit_sha256: {SHA}",
        f"https://github.com/pytorch/pytorch/commit/{COMMIT}",
        f"https://huggingface.co/a/b/blob/{COMMIT}/config.json",
        f"hub/models--a--b/snapshots/{COMMIT}/config.json",
        f"transformers @ git+https://github.com/huggingface/transformers@{COMMIT}",
        "68394.8671875 -1.2e-05 3.4028234663852886e+38 0.29675419000159",
        "aten.add.Tensor aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten::add c10::add at::native::add_kernel std::vector",
        "modeling_gemma3.py:416",
        "12:30:45 2026-11-25T13:47:10+00:00",
        "127.0.0.1:80 0.0.0.0 ::1 localhost",
        "pad_token: <|endoftext|> eos_token=</s> token 0 '<bos>' tokens: capital",
        "hf_quantizer hf_device_map _is_hf_initialized",
        "Basic configuration; sk-learn; task-sk-x; missing_keys: []; key: transformer.h.0.attn.bias",
        "https://github.com/huggingface/transformers/issues/36822?x=1",
        "https://docs.pytorch.org/home/me?page=2",
        "hf://datasets/a/b",
        "torch@2.13.0 and @torch.no_grad()",
        "password: short",
        "SECRET = re.compile(pattern)",
        "the HTTP bearer authorization",
        "https://example.org/simple",
        "query_key_value.weight secret: x",
        base64.b64encode(bytes(range(96))).decode(),
    ],
)
def test_what_tells_nothing_stays(text):
    assert redact(text, NOBODY) == text


def test_a_version_below_its_package_is_no_address():
    data = {"distributions": {"nvidia-cudnn-cu12": "9.10.2.21"}, "packages": [{"bad": "1.2.3.4"}], "address": "9.9.9.9"}
    assert redact_json(data, NOBODY) == {**data, "address": "IP"}


ENVIRONMENT = {
    "USER": "jdoe",
    "LOGNAME": "jdoe2",
    "SUDO_USER": "janed",
    "HOSTNAME": "rig7.lab.acme.example",
    "MY_API_KEY": 'k"\u00e9y/with odd+signs',
    "DEPLOY_TOKEN": "short",
    "DB_PASSWORD": "correct horse battery",
    "HTTPS_PROXY": "http://me:pw@proxy.acme.example:3128",
    "NO_PROXY": "localhost,127.0.0.1,.svc,.cluster.acme",
    "PIP_INDEX_URL": "https://pypi.org/simple",
    "UV_INDEX_URL": "https://mirror.acme.example/simple",
    "HF_HOME": "/mnt/team-rocket/hf",
    "KEYBOARD": "not-secret-at-all",
}


def masked(text):
    return redact(text, private_words(ENVIRONMENT))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("jdoe, jdoe2 and janed", "USER, USER and USER"),
        ("on rig7 in lab.acme.example", "on HOST in HOST"),
        ("node9.lab.acme.example", "HOST"),
        ("via proxy.acme.example and mirror.acme.example", "via HOST and HOST"),
        ("x.cluster.acme", "HOST"),
        ("correct horse battery", "SECRET"),
        ("short and not-secret-at-all", "short and not-secret-at-all"),
        ("/mnt/team-rocket/hf/hub/x", "HF_HOME/hub/x"),
        ("svc pypi.org rig70 jdoes", "svc pypi.org rig70 jdoes"),
    ],
)
def test_the_environments_words_are_masked(text, left):
    assert masked(text) == left


@pytest.mark.parametrize("form", [str, json.dumps, repr])
def test_a_secret_is_masked_in_json_and_in_a_repr(form):
    assert "odd" not in masked(f"it is {form(ENVIRONMENT['MY_API_KEY'])}")


def test_a_secret_is_masked_in_an_address():
    assert masked("v/k%22%C3%A9y%2Fwith%20odd%2Bsigns/x") == "v/SECRET/x"


def test_each_line_of_a_long_secret_is_masked():
    words = private_words({"SSH_KEY": "first line of the secret\nsecond line of the secret"})
    assert redact("a second line of the secret b", words) == "a SECRET b"


def test_a_short_value_or_a_word_is_no_private_name():
    words = Private(user="model", host="python", users=("7",), hosts=("10.1.2.3",))
    text = "the model of python 7, model.layers.1.2.3"
    assert redact(text, words) == text


def test_home_folders_and_temporary_ones():
    words = Private(home="/home/alice")
    said = r"/nfs7/home/bob/x C:\\Users\\dave\\x /private/var/folders/zz/zyx_1234/T/x file:///home/eve/x"
    assert redact(said, words) == r"/nfs7~/x ~\\x ~/T/x file://~/x"


def run_of(model, executable=None):
    """The least that the answer of a run holds."""
    cell, case = CellInfo(executable=executable), Case(model)
    return Answer(verdict=Outcome.GOOD, reason="r", model=ModelInfo(id=model), cell=cell, case=case)


def test_what_the_run_keeps_private_and_public():
    words, keep = scope(run_of("/srv/team-x/model", "/opt/acme/env/bin/python"), NOBODY)
    assert redact("/srv/team-x/model in /opt/acme/env/lib", words, keep) == "./model in ENV/lib"
    assert scope(run_of("acme/model"), NOBODY)[1] == ("acme/model",)


def test_the_folders_of_what_a_model_is_given_are_private():
    run = run_of("/srv/team-x/adapter")
    case = Case("/srv/team-x/adapter", inputs="/mnt/client-y/in.npz")
    run = replace(run, case=case, files=Files(folder="/data/acme-z/base", adapter="/srv/team-x/adapter"))
    words, keep = scope(run, NOBODY)
    assert redact("/mnt/client-y/in.npz /data/acme-z/base/x", words, keep) == "./in.npz ./base/x"


def test_a_public_id_stays_and_a_secret_in_it_does_not():
    words = Private(user="acme", secrets=("acme/model-secret",))
    assert redact("acme/model by acme", words, ("acme/model",)) == "acme/model by USER"
    assert redact("acme/model-secret", words, ("acme/model",)) == "SECRET"


def test_data_keeps_its_structure_and_its_numbers():
    data = {"a": [1, 2.5, None, True, "nan", {"b": ("x", 3)}], "c": "/home/bob/x"}
    assert redact_json(data, NOBODY) == {"a": [1, 2.5, None, True, "nan", {"b": ["x", 3]}], "c": "~/x"}


def test_the_value_of_a_secret_variable_is_masked_whole():
    data = {"variables": {"WANDB_API_KEY": "0123", "OMP_NUM_THREADS": "2"}, "missing_keys": ["w"], "token": "a"}
    assert redact_json(data, NOBODY) == {**data, "variables": {"WANDB_API_KEY": "SECRET", "OMP_NUM_THREADS": "2"}}


def test_a_key_over_several_lines_of_a_list_is_masked():
    assert redact_json({"stderr_tail": ["a", *KEY.split("\n"), "b"]}, NOBODY) == {"stderr_tail": ["a", "TOKEN", "b"]}


def test_names_in_keys_are_masked():
    assert redact_json({"/home/bob/x": 1}, NOBODY) == {"~/x": 1}


@pytest.mark.parametrize("text", ["a" * 200_000, "a_" * 100_000, "1." * 100_000, "key=" * 50_000, "x@" * 100_000,
                                  "://" * 60_000, KEY[:31] * 5_000, ":" * 200_000])  # fmt: skip
def test_no_text_takes_long(text):
    began = time.perf_counter()
    redact(text, private_words(ENVIRONMENT))
    assert time.perf_counter() - began < 5


def test_evidence_of_five_megabytes_takes_about_a_second():
    row = {"tensor": "model.layers.{}.mlp.up_proj.weight", "absmax": 0.5, "file": "/home/bob/model.safetensors"}
    rows = [{**row, "tensor": row["tensor"].format(number)} for number in range(50_000)]
    assert len(json.dumps(rows)) > 4_500_000
    began = time.perf_counter()
    redact_json(rows, private_words(ENVIRONMENT))
    assert time.perf_counter() - began < 5


# --- names, mounts and values of this machine ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("alicia-laptop", "USER-laptop"),
        ("alicia_gpu0 gpu0-alicia x.alicia.y", "USER_gpu0 gpu0-USER x.USER.y"),
        ("Alicia ALICIA", "USER USER"),
        ("malicia alicias alicia2", "malicia alicias alicia2"),
        ("on quaggarig_0 and quaggarig-eth0", "on HOST_0 and HOST-eth0"),
        ("max_norm of model.max.7, by max", "max_norm of model.max.7, by USER"),
    ],
)
def test_a_name_is_masked_in_longer_ones_unless_programs_use_it(text, left):
    assert redact(text, Private(user="alicia", users=("max",), host="quaggarig.lab.example")) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/mnt/quagga/models/x.bin:7", "MOUNT/x.bin:7"),
        ("no space left on /scratch/quagga", "no space left on MOUNT"),
        ("/Volumes/Quagga Disk/m/x.bin", "MOUNT/x.bin"),
        ("/gpfs/fs1/u/lib/python3.11/site-packages/torch/nn/a.py", "MOUNT/site-packages/torch/nn/a.py"),
        ("/data/hub/models--a--b/snapshots/x", "MOUNT/models--a--b/snapshots/x"),
        ("file:///mnt/quagga/x", "file://MOUNT/x"),
        (r"\\nas\quagga\x", r"MOUNT\x"),
        ("https://github.com/mnt/x/y a/mnt/b/c and/or", "https://github.com/mnt/x/y a/mnt/b/c and/or"),
        (r"\\frac\\alpha", r"\\frac\\alpha"),
    ],
)
def test_a_mount_is_masked_by_the_usual_places(text, left):
    assert redact(text, NOBODY) == left


def test_the_mounts_of_this_machine_are_read(tmp_path, monkeypatch):
    table = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\nnas9:/export /quagga\\040team nfs4 rw 0 0\n"
    (tmp_path / "mounts").write_text(table + "//smb7/share /mnt/y cifs rw 0 0\n", "utf-8")
    monkeypatch.setattr("repro.report.privacy.machine.MOUNTS", tmp_path / "mounts")
    words = private_words({})
    assert redact("/quagga team/a/b from nas9 and smb7", words) == "MOUNT/a/b from HOST and HOST"
    assert ("/proc", "MOUNT") not in words.folders


@pytest.mark.parametrize("name", ["DB_PWD", "GH_PAT", "NPM_AUTH", "SMTP_PASS", "my_secret", "CI_TOKEN_2", "X_KEY_PROD"])
def test_the_value_of_a_variable_is_secret_by_the_variables_name(name):
    assert redact("a quagg-7 b", private_words({name: "quagg-7"})) == "a SECRET b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "quagg-7"),
        ("OLDPWD", "quagg-7"),
        ("KEY_FILE", "quagg-7"),
        ("SORT_KEY", "default"),
        ("X_KEY", "float16"),
    ],
)
def test_a_folder_or_a_word_of_programs_is_no_secret(name, value):
    assert redact(f"a {value} b", private_words({name: value})) == f"a {value} b"


def test_a_number_is_masked_by_itself_and_not_inside_of_another():
    words = private_words({"CARD_PIN": "83749201"})
    assert redact("pin 83749201, 0.83749201 and 183749201", words) == "pin SECRET, 0.83749201 and 183749201"


def test_the_password_of_an_address_in_a_variable_is_secret():
    assert redact("a zebra-9", private_words({"PIP_INDEX_URL": "https://me:zebra-9@pypi.corp.example/x"})) == "a SECRET"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("['--hub-token', 'zebra9']", "['--hub-token', 'TOKEN']"),
        ("hf_abcd\nefgh1234ijkl", "TOKEN\n"),
        ("ghp_abcd\u200befgh1234ijklZZZZ99", "TOKEN"),
        (r"{\"password\": \"zebra9xx\"}", r"{\"password\": \"TOKEN\"}"),
        ("pwd = os.getcwd()", "pwd = os.getcwd()"),
        ("pwd = self.pwd", "pwd = self.pwd"),
        ("threading.local torch.local y = x@w1", "threading.local torch.local y = x@w1"),
    ],
)
def test_a_secret_is_masked_as_people_say_it_and_code_stays(text, left):
    assert redact(text, NOBODY) == left


@pytest.mark.parametrize("quote", ["'", '"', '\\"', "'\"'\"'"])
@pytest.mark.parametrize("option", ["--password ", "--password=", "--api-key ", "--db-password "])
def test_a_phrase_behind_an_option_is_masked_whichever_way_it_is_quoted(option, quote):
    text = f"repro serve {option}{quote}correct horse battery{quote} --port 8000"
    assert redact(text, Private()) == f"repro serve {option}{quote}TOKEN{quote} --port 8000"


@pytest.mark.parametrize("text", ["+@contextlib.contextmanager", "-    @pytest.fixture", "a@torch.ops.b", "x @ y"])
def test_a_decorator_in_a_difference_and_a_product_are_no_addresses(text):
    assert redact(text, Private()) == text
