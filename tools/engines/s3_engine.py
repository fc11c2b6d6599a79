"""An S3 store over a folder (the Versity gateway), with a key pair and a bucket."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tools.engines.build import program
from tools.engines.process import LOOPBACK, Engine

ACCESS_KEY: Final = "memos"
REGION: Final = "us-east-1"


class S3Engine(Engine):
    """An S3 store in a folder, whose file system must support extended attributes."""

    name = "s3"
    port_names = ("s3",)

    def __init__(
        self,
        folder: Path | str,
        *,
        secret_key: str | None = None,
        bucket: str = "memos",
        tls: bool = False,
        tied: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describes it.

        Args:
            folder: Holds the buckets, in `data`.
            secret_key: Of the access key `memos`; by default one by chance, kept in the folder.
            bucket: Made by the first start.
            tls: Whether it speaks HTTPS, and nothing else.
            tied: Whether it ends with this process.
            environment: Further environment variables.
        """
        super().__init__(folder, tls=tls, tied=tied, environment=environment)
        self._given, self._bucket = secret_key, bucket

    @property
    def secret_key(self) -> str:
        """The secret of the access key."""
        return self._secret(self._given, "secret.key")

    @property
    def endpoint(self) -> str:
        """Where clients connect to."""
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.ports['s3']}"

    def config(self, *, files: bool = False) -> dict[str, Any]:
        """Returns the settings of the blob store's backend `s3`."""
        config: dict[str, Any] = {
            "endpoint": self.endpoint,
            "bucket": self._bucket,
            "region": REGION,
            "access_key": ACCESS_KEY,
        }
        config |= {"secret_key_file": str(self.folder / "secret.key")} if files else {"secret_key": self.secret_key}
        return config | ({"ca_file": str(self.ca_file)} if self.tls else {})

    def client(self) -> Any:
        """Returns a boto3 client of the store. Needs boto3."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=self.secret_key,
            verify=str(self.ca_file) if self.tls else None,
            config=Config(s3={"addressing_style": "path"}),
        )

    def _command(self) -> tuple[list[str], dict[str, str]]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        arguments = [str(program(self.name)), "--port", f"{LOOPBACK}:{self.ports['s3']}", "--region", REGION]
        arguments += ["--health", "/healthy", "--quiet", "--keep-alive"]
        if self.tls:
            certificate, private = self._certificate()
            arguments += ["--cert", str(certificate), "--key", str(private)]
        arguments += ["posix", str(data)]
        return arguments, {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": self.secret_key}

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthy", timeout=5, context=self._context()) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError:
            return False

    def _started(self) -> None:
        client = self.client()
        try:
            if self._bucket not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=self._bucket)
        finally:
            client.close()
