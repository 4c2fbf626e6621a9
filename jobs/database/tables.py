"""Define the tables and columns that queries built with SQLAlchemy use. Other queries are plain text."""

from sqlalchemy import BigInteger, DateTime, Integer, Text, column, table
from sqlalchemy.dialects.postgresql import REAL

images = table(
    "images",
    column("image_id", BigInteger),
    column("product_id", Text),
    column("deleted_at", DateTime(timezone=True)),
    schema="catalog",
)
products = table("products", column("product_id", Text), column("display_name", Text), schema="catalog")
image_tags = table(
    "image_tags",
    column("image_id", BigInteger),
    column("classifier_version_id", Integer),
    column("category", Text),
    column("confidence", REAL),
    column("tagged_at", DateTime(timezone=True)),
    schema="catalog",
)
product_tags = table(
    "product_tags",
    column("product_id", Text),
    column("classifier_version_id", Integer),
    column("images_disagree"),
    schema="catalog",
)
labels = table(
    "labels",
    column("label_id", BigInteger),
    column("image_id", BigInteger),
    column("category", Text),
    column("labeled_at", DateTime(timezone=True)),
    schema="catalog",
)
image_embeddings = table(
    "image_embeddings",
    column("image_id", BigInteger),
    column("space_id", Integer),
    column("embedding"),
    column("embedded_at", DateTime(timezone=True)),
    schema="catalog",
)
map_points = table(
    "map_points",
    column("image_id", BigInteger),
    column("space_id", Integer),
    column("position"),
    column("embedded_at", DateTime(timezone=True)),
    schema="catalog",
)
text_queries = table(
    "text_queries", column("query_text", Text), column("encoder_version_id", Integer), schema="catalog"
)
