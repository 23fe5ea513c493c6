"""The query tables that this process can serve, by fingerprint."""

from services.errors import ConfigurationError, EncoderMismatch, InvalidInput
from services.index_spec import Generation
from services.known_encoders import known_encoders
from services.manifest import Manifest
from services.query_table import QueryTable
from services.settings import Settings


class QueryTables:
    """The configured encoder's table, and those of the other known encoders once an index asks for them."""

    def __init__(self, settings: Settings) -> None:
        """Reads every manifest and loads the configured table. Raises ConfigurationError."""
        known = known_encoders(settings)
        self.default = known[0].manifest
        self.manifests = [one.manifest for one in known]
        self._directories = {one.manifest.fingerprint: one.directory for one in known}
        # of two with one name the one that comes first
        self._names = {one.manifest.name: one.manifest for one in reversed(known)}
        self._tables = {self.default.fingerprint: QueryTable.load(known[0].directory)}

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
                f"service holds {', '.join(sorted(self._directories))}: name its model directory in "
                "SPARSEWELL_MORE_ENCODERS.",
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
