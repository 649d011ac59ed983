"""The fixture of damaged records, as the tests of records have it."""

from records.conftest import damage as damage
