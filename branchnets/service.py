"""What is said of a storage service that does not answer, or refuses."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

#: Seconds without an answer until it is said what is waited for.
PATIENCE = 8.0

#: What an account needs for a bucket. orbax looks at the bucket itself.
ROLES = "roles/storage.objectAdmin and roles/storage.legacyBucketReader"

_NO_KEY = ("anonymous caller", "default credentials", "401", "invalid_grant", "reauthentication")
_REFUSED = ("forbidden", "403 ")  # as gcsfs and google-cloud-storage begin

# Of this process.
_answered: set[str] = set()
_found: set[str] = set()


@contextlib.contextmanager
def first_contact(bucket: str) -> Iterator[None]:
    """Says on standard error what is waited for, where a bucket's first answer takes long.

    gcsfs asks six times, ever later, and longer for a key: that may be a minute or two without a
    network. It is not cut short, since what fails at the start of a run is not tried again.

    Args:
      bucket: as a URL.
    """
    if bucket in _answered:
        yield
        return
    timer = threading.Timer(PATIENCE, _tell, [bucket])
    timer.daemon = True
    timer.start()
    try:
        yield
        _answered.add(bucket)
    except FileNotFoundError:
        _answered.add(bucket)
        raise
    finally:
        timer.cancel()


def _tell(bucket: str) -> None:
    print(
        f"waiting for {bucket}, which has not answered for {PATIENCE:.0f} s; after a minute or two "
        "without network or key this ends with the reason",
        file=sys.stderr,
        flush=True,
    )


def has_bucket(bucket: str) -> bool:
    """Whether a bucket at gs:// exists, as far as that can be found out.

    gcsfs says "not found" of what is not in it, and of a bucket that is not there. Asked once.
    """
    from fsspec.core import url_to_fs

    if bucket not in _found:
        try:
            system, _ = url_to_fs(f"gs://{bucket}", use_listings_cache=False)
            system.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        except FileNotFoundError:
            return False
        except Exception:  # as where an account may read and not list
            pass
        _found.add(bucket)
    return True


def no_bucket(bucket: str) -> str:
    """What to say of a bucket at gs:// that does not exist."""
    return f"the bucket {bucket} does not exist (gcloud storage buckets create gs://{bucket})"


def reason(error: Exception, scheme: str) -> str:
    """Why something failed, in a line; of Google's service, with what to do about it.

    Args:
      error: of fsspec or of a client.
      scheme: of the URL.
    """
    lines = str(error).splitlines() or [""]
    text = lines[0].rstrip(". ") or type(error).__name__
    if scheme != "gs":
        return text
    if text.lower().startswith(_REFUSED):
        if len(lines) > 1 and lines[1].strip():  # which account lacks which permission
            text += f": {lines[1].rstrip('. ')}"
        return f"{text}. The account needs {ROLES} on the bucket"
    if any(word in text.lower() for word in _NO_KEY):
        text += (
            ". On a Google machine its service account needs access to the bucket; "
            "elsewhere: gcloud auth application-default login"
        )
    return text
