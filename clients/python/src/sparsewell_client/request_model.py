"""Base of the models that are sent to the API."""

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """A model that keeps members it does not know.

    The API decides what it accepts: an older client can use the members of a newer API, and an unknown member is
    refused with the documented error. Rules that were read and are written back lose nothing.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)
