-- The most that a customer's top-ups may come to in a calendar month; NULL: what the settings say.

ALTER TABLE customers ADD COLUMN top_up_max_e10 bigint CHECK (top_up_max_e10 >= 0);
