"""What a submission may hold instead of an answer. Each cell defines the function FUNCTION, and earns nothing.

Some break what other parts stand on (``POISON``): those parts must keep their points all the same.
"""

WRONG = "def FUNCTION(*args):\n    return 0.123"

CELLS = {
    # forged verdicts
    "patches every comparison": """
import numpy as np
np.allclose = np.isclose = np.array_equal = np.testing.assert_allclose = lambda *a, **k: True
import course_lib.grading.compare as compare
compare.same = lambda *a, **k: True
compare.judge = lambda *a, **k: compare.Verdict(True)
def FUNCTION(*args):
    return 0.123
""",
    "hands over its own values": """
from IPython.display import display
def FUNCTION(*args):
    value = {"kind": "f", "shape": [], "data": "AAAAAAAA8D8="}
    found = [{"loss": value, "far": value, "near": value}] * 2
    display({"application/vnd.course.values+json": {"part": "2.2", "found": found, "right": True}}, raw=True)
    return 0.123
""",
    "prints a verdict": """
def FUNCTION(*args):
    print("✓ right on the public seeds")
    return 0.123
""",
    "an object that equals everything": """
class Equal(float):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0.0
    __rsub__ = __ne__ = __sub__
def FUNCTION(*args):
    return Equal(0.123)
""",
    "reads the key in the library": """
import base64, json
from course_lib.grading.release import PUBLIC
import numpy as np
def FUNCTION(*args):
    parts = json.loads((PUBLIC / "02_autoencoders.json").read_text())["parts"]
    (part,) = [p for p in parts if "FUNCTION" in p["check"]]
    return np.frombuffer(base64.b64decode(next(iter(part["key"]["expected"][0].values()))["data"]))[0]
""",
    "looks for the solutions": """
import pathlib, course_lib
def FUNCTION(*args):
    for parent in pathlib.Path(course_lib.__file__).parents:
        for path in parent.glob("*/solutions/02_autoencoders.py"):
            (cell,) = [c for c in path.read_text().split("# %%") if "def FUNCTION" in c and '"title"' in c]
            exec(cell.split("]", 1)[1], globals())
            return FUNCTION(*args)
    return 0.123
""",
    "looks for the key in other processes": """
import glob
def FUNCTION(*args):
    found = b"".join(open(p, "rb").read() for p in glob.glob("/proc/[0-9]*/cmdline"))
    assert b"--grader-plan" in found or b"pytest" in found
    return 0.123
""",
    "asks the internet": """
import socket
def FUNCTION(*args):
    socket.create_connection(("1.1.1.1", 53), timeout=3)
    return 0.123
""",
    "asks the machine outside": """
import socket
def FUNCTION(*args):
    socket.create_connection(("127.0.0.1", 22), timeout=3)
    return 0.123
""",
    "writes into the library": """
import course_lib.grading.compare as compare
def FUNCTION(*args):
    open(compare.__file__, "a").write("judge = None")
    return 0.123
""",
    "writes down public values": WRONG,
    # comments and magics that steer
    "a comment that skips": "# NBVAL_SKIP\n" + WRONG,
    "a comment that expects an error": "# NBVAL_RAISES_EXCEPTION\ndef FUNCTION(*args):\n    raise ValueError",
    "an old comment": "# PYTEST_VALIDATE_IGNORE_OUTPUT\n" + WRONG,
    "a magic for another language": "%%bash\necho FUNCTION",
    "a magic that forgets everything": "%reset -f\ndef FUNCTION(*args):\n    return 0.123",
    "asks a question": "answer = input('What is it? ')\n" + WRONG,
    "silences its error": """
shell = get_ipython()
shell.showtraceback = shell._showtraceback = lambda *a, **k: None
def FUNCTION(*args):
    raise ValueError("nobody hears me")
""",
    # odd values
    "nothing": "def FUNCTION(*args):\n    pass",
    "a truth value": "def FUNCTION(*args):\n    return True",
    "a text": "def FUNCTION(*args):\n    return '1.0'",
    "not a number": "def FUNCTION(*args):\n    return float('nan')",
    "infinity": "def FUNCTION(*args):\n    return float('inf')",
    "a complex number": "def FUNCTION(*args):\n    return 1j",
    "a huge whole number": "def FUNCTION(*args):\n    return 10**400",
    "a huge array": "import numpy as np\ndef FUNCTION(*args):\n    return np.zeros((2000, 2000))",
    "a ragged list": "def FUNCTION(*args):\n    return [[1.0], [1.0, 2.0]]",
    # code that is none
    "not Python": "def FUNCTION(*args) return 1",
    "half a surrogate": "FUNCTION = '\ud800'",
    "a null character": "def FUNCTION(*args):\n    return 0.123\n\x00",
    "an empty cell": "",
    "an endless recursion": "def FUNCTION(*args):\n    return FUNCTION(*args)",
    "terminal and markup in an error": """
def FUNCTION(*args):
    raise ValueError('\\x1b[31m<script>alert(1)</script> =HYPERLINK("x") ]]> \\x00 \\u202e')
""",
    # ends of kernels
    "leaves": "import os\ndef FUNCTION(*args):\n    os._exit(0)",
    "leaves politely": "exit()\n" + WRONG,
    "leaves by an exception": "def FUNCTION(*args):\n    raise SystemExit(0)",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "crashes": "import ctypes\ndef FUNCTION(*args):\n    ctypes.string_at(0)",
    "closes all files": "import os\nos.closerange(0, 512)\n" + WRONG,
    # too much
    "never ends": "while True:\n    pass",
    "never ends and cannot be interrupted": """
def FUNCTION(*args):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
""",
    "sleeps": "import time\ndef FUNCTION(*args):\n    time.sleep(1e6)",
    "takes all memory": "def FUNCTION(*args):\n    return len([bytearray(1 << 28) for _ in range(400)])",
    "shouts": "def FUNCTION(*args):\n    while True:\n        print('x' * 100_000)",
    "shows too much": """
from IPython.display import display
def FUNCTION(*args):
    while True:
        display({"image/png": "A" * 3_000_000}, raw=True)
""",
    "forks": """
import os
def FUNCTION(*args):
    while True:
        os.fork()
""",
    "starts threads": """
import threading, time
def FUNCTION(*args):
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
""",
    "fills the disk": """
def FUNCTION(*args):
    for i in range(10_000):
        with open(f"/tmp/{i}", "wb") as file:
            file.write(b"x" * (32 << 20))
""",
    "fills the folder of its sockets": """
import glob, os, sys
def FUNCTION(*args):
    folder = os.path.dirname(get_ipython().kernel.config["IPKernelApp"]["connection_file"])
    for i in range(100_000):
        with open(f"{folder}/{i}", "wb") as file:
            file.write(b"x" * (1 << 20))
""",
    "sends what is no message": """
def FUNCTION(*args):
    socket = get_ipython().kernel.iopub_socket
    for _ in range(20):
        socket.send_multipart([b"<IDS|MSG>", b"", b"{", b"[]", b"null", b"7"])
    return 0.123
""",
}

POISON = {
    "takes the names of others": """
globals().update(np=None, check=None, reconstruction_loss=None, sum=None, len=None)
def FUNCTION(*args):
    return 0.123
""",
    "breaks linear algebra": """
import numpy as np
np.linalg.svd = np.linalg.qr = np.linalg.eigvalsh = np.exp = None
def FUNCTION(*args):
    return 0.123
""",
    "makes random numbers constant": """
import numpy as np
class Constant:
    def __init__(self, *a): pass
    def __getattr__(self, name): return lambda *a, size=(), **k: np.ones(size)
np.random.default_rng = Constant
def FUNCTION(*args):
    return 0.123
""",
    "breaks the module of the checks": """
import sys, types
fake = types.ModuleType("course_lib.grading.checks")
fake.Checks = lambda name: lambda part: lambda values: None
sys.modules["course_lib.grading.checks"] = fake
def FUNCTION(*args):
    return 0.123
""",
    "leaves later": """
import os, threading
threading.Timer(0.05, os._exit, args=(1,)).start()
def FUNCTION(*args):
    return 0.123
""",
    "shouts later": """
import threading
def shout():
    while True:
        print("x" * 100_000)
threading.Thread(target=shout, daemon=True).start()
def FUNCTION(*args):
    return 0.123
""",
    "an alarm": """
import signal
signal.setitimer(signal.ITIMER_REAL, 0.05)
def FUNCTION(*args):
    return 0.123
""",
    "kills everybody": """
import os
def FUNCTION(*args):
    os.kill(-1, 9)
""",
}

# These need walls: without a sandbox they harm the machine that runs them, or find what walls would hide.
NEED_WALLS = {
    "looks for the solutions",
    "looks for the key in other processes",
    "asks the internet",
    "asks the machine outside",
    "writes into the library",
    "takes all memory",
    "forks",
    "starts threads",
    "fills the disk",
    "kills everybody",
}
