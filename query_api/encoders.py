"""The query tables that this process can serve, by fingerprint."""

from services.errors import ConfigurationError, EncoderMismatch, InvalidInput
from services.index_spec import Generation
from services.manifest import MANIFEST, WEIGHTS_ROOT, Manifest, read_manifest, resolve
from services.query_table import QueryTable


class QueryTables:
    """The configured encoder's table, and those of the other shipped encoders once an index asks for them."""

    def __init__(self, configured: str) -> None:
        """Reads every manifest and loads the configured table. Raises ConfigurationError."""
        directory = resolve(configured)
        self.default = read_manifest(directory)
        self._directories = {self.default.fingerprint: directory}
        self._names = {self.default.name: self.default}
        for path in sorted(WEIGHTS_ROOT.glob(f"*/{MANIFEST}")):
            manifest = read_manifest(path.parent)
            self._directories.setdefault(manifest.fingerprint, path.parent)
            self._names.setdefault(manifest.name, manifest)
        self._tables = {self.default.fingerprint: QueryTable.load(directory)}

    def of(self, generation: Generation) -> QueryTable:
        """The table that belongs to a generation's vectors. Raises EncoderMismatch (`encoder_mismatch`)."""
        fingerprint = generation.encoder.fingerprint
        table = self._tables.get(fingerprint)
        if table is not None:
            return table
        directory = self._directories.get(fingerprint)
        if directory is None:
            raise EncoderMismatch(
                "encoder_mismatch",
                f"The index {generation.index!r} was encoded by {generation.encoder.name} ({fingerprint}), and this "
                f"service holds {', '.join(sorted(self._directories))}: set SPARSEWELL_ENCODER to its model directory.",
            )
        try:
            table = QueryTable.load(directory)
        except ConfigurationError as error:
            raise EncoderMismatch("encoder_mismatch", error.detail) from error
        self._tables[fingerprint] = table
        return table

    def serves(self, fingerprint: str) -> bool:
        return fingerprint in self._directories

    def manifest(self, name: str | None) -> Manifest:
        """The manifest of an encoder by name, None: the configured one. Raises InvalidInput (`unknown_encoder`)."""
        if name is None:
            return self.default
        try:
            return self._names[name]
        except KeyError:
            known = ", ".join(sorted(self._names))
            raise InvalidInput("unknown_encoder", f"No encoder is called {name[:80]!r} (known: {known}).") from None
