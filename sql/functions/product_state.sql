CREATE OR REPLACE FUNCTION catalog.product_state(product_id text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    -- With a parameter, Postgres looks up the labels of this product alone, instead of those of all products.
    SELECT to_jsonb(t) - '{product_id,display_name}'::text[]
    FROM catalog.current_product_tags t WHERE t.product_id = product_state.product_id
$$;

COMMENT ON FUNCTION catalog.product_state IS
    'The row of a product in current_product_tags, without its id and name; null if nothing is said about it';
