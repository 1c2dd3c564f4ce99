-- The catalogue: what all tenants sell, with a price for each currency. Frozen once merged.
--
-- It is common to all tenants, so its policies hide no row, and nobody who logs in writes it: it is loaded by the
-- migrator (`python -m scripts.load_catalogue`). Tenants' orders copy what they need of it and keep no foreign key to
-- it, so that an order locks no row here and a loading never waits for orders.

CREATE TABLE shared.categories (
    id         uuid        NOT NULL DEFAULT gen_random_uuid(),
    code       text        NOT NULL,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT categories_pkey PRIMARY KEY (id),
    CONSTRAINT categories_code_key UNIQUE (code),
    CONSTRAINT categories_code_is_a_name CHECK (code ~ '^[a-z][a-z0-9-]{0,63}$')
);

-- A product is withdrawn, never deleted: orders name it. The sku is what a loading knows it by, and its place in lists.
CREATE TABLE shared.products (
    id          uuid        NOT NULL DEFAULT gen_random_uuid(),
    category_id uuid        NOT NULL,
    sku         text        NOT NULL,
    name        text        NOT NULL,
    description text,
    status      text        NOT NULL DEFAULT 'active',
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT products_pkey PRIMARY KEY (id),
    CONSTRAINT products_sku_key UNIQUE (sku),
    CONSTRAINT products_category_id_fkey FOREIGN KEY (category_id) REFERENCES shared.categories (id),
    CONSTRAINT products_sku_length CHECK (length(sku) BETWEEN 1 AND 64),
    CONSTRAINT products_status_known CHECK (status IN ('active', 'withdrawn'))
);
CREATE INDEX products_category_id_sku_idx ON shared.products (category_id, sku);

-- A price in the currency's minor unit (ISO 4217). A product without a price in a currency is not sold in it: nothing
-- is ever converted.
CREATE TABLE shared.product_prices (
    product_id  uuid   NOT NULL,
    currency    text   NOT NULL,
    price_minor bigint NOT NULL,
    CONSTRAINT product_prices_pkey PRIMARY KEY (product_id, currency),
    CONSTRAINT product_prices_product_id_fkey FOREIGN KEY (product_id) REFERENCES shared.products (id),
    CONSTRAINT product_prices_currency_is_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT product_prices_price_positive CHECK (price_minor > 0)
);

ALTER TABLE shared.categories ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.products ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.product_prices ENABLE ROW LEVEL SECURITY;

CREATE POLICY categories_for_app ON shared.categories TO wallet_app USING (true);
CREATE POLICY products_for_app ON shared.products TO wallet_app USING (true);
CREATE POLICY product_prices_for_app ON shared.product_prices TO wallet_app USING (true);
CREATE POLICY categories_for_all_tenants ON shared.categories FOR SELECT TO wallet_tenants USING (true);
CREATE POLICY products_for_all_tenants ON shared.products FOR SELECT TO wallet_tenants USING (true);
CREATE POLICY product_prices_for_all_tenants ON shared.product_prices FOR SELECT TO wallet_tenants USING (true);

GRANT SELECT ON shared.categories, shared.products, shared.product_prices TO wallet_app, wallet_tenants;
