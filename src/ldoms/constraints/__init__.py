"""Descriptions of domains and services as XML: ``list-constraints -x`` writes them, ``add-domain -i`` reads them."""

from ldoms.constraints.mapping import PROPERTIES, info_properties
from ldoms.constraints.read import Described, Description, read_description
from ldoms.constraints.write import write_description

__all__ = ["PROPERTIES", "Described", "Description", "info_properties", "read_description", "write_description"]
