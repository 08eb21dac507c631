


SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;


CREATE TABLE public.attested_node_entries (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    spiffe_id text,
    data_type text,
    serial_number text,
    expires_at timestamp with time zone,
    new_serial_number text,
    new_expires_at timestamp with time zone,
    can_reattest boolean,
    agent_version text
);



CREATE TABLE public.attested_node_entries_events (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    spiffe_id text
);



CREATE SEQUENCE public.attested_node_entries_events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.attested_node_entries_events_id_seq OWNED BY public.attested_node_entries_events.id;



CREATE SEQUENCE public.attested_node_entries_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.attested_node_entries_id_seq OWNED BY public.attested_node_entries.id;



CREATE TABLE public.bundles (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    trust_domain text NOT NULL,
    data bytea
);



CREATE SEQUENCE public.bundles_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.bundles_id_seq OWNED BY public.bundles.id;



CREATE TABLE public.ca_journals (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    data bytea,
    active_x509_authority_id text,
    active_jwt_authority_id text
);



CREATE SEQUENCE public.ca_journals_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.ca_journals_id_seq OWNED BY public.ca_journals.id;



CREATE TABLE public.dns_names (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    registered_entry_id integer,
    value text
);



CREATE SEQUENCE public.dns_names_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.dns_names_id_seq OWNED BY public.dns_names.id;



CREATE TABLE public.federated_registration_entries (
    bundle_id integer NOT NULL,
    registered_entry_id integer NOT NULL
);



CREATE TABLE public.federated_trust_domains (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    trust_domain text NOT NULL,
    bundle_endpoint_url text,
    bundle_endpoint_profile text,
    endpoint_spiffe_id text,
    implicit boolean
);



CREATE SEQUENCE public.federated_trust_domains_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.federated_trust_domains_id_seq OWNED BY public.federated_trust_domains.id;



CREATE TABLE public.join_tokens (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    token text,
    expiry bigint
);



CREATE SEQUENCE public.join_tokens_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.join_tokens_id_seq OWNED BY public.join_tokens.id;



CREATE TABLE public.migrations (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    version integer,
    code_version text
);



CREATE SEQUENCE public.migrations_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.migrations_id_seq OWNED BY public.migrations.id;



CREATE TABLE public.node_resolver_map_entries (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    spiffe_id text,
    type text,
    value text
);



CREATE SEQUENCE public.node_resolver_map_entries_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.node_resolver_map_entries_id_seq OWNED BY public.node_resolver_map_entries.id;



CREATE TABLE public.registered_entries (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    entry_id text,
    spiffe_id text,
    parent_id text,
    ttl integer,
    admin boolean,
    downstream boolean,
    expiry bigint,
    revision_number bigint,
    store_svid boolean,
    hint text,
    jwt_svid_ttl integer,
    additional_attributes bytea
);



CREATE TABLE public.registered_entries_events (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    entry_id text
);



CREATE SEQUENCE public.registered_entries_events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.registered_entries_events_id_seq OWNED BY public.registered_entries_events.id;



CREATE SEQUENCE public.registered_entries_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.registered_entries_id_seq OWNED BY public.registered_entries.id;



CREATE TABLE public.selectors (
    id integer NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone,
    registered_entry_id integer,
    type text,
    value text
);



CREATE SEQUENCE public.selectors_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;



ALTER SEQUENCE public.selectors_id_seq OWNED BY public.selectors.id;



CREATE TABLE public.steeple_bundle_marks (
    trust_domain character varying(255) NOT NULL,
    mark character varying(255) NOT NULL
);



CREATE TABLE public.steeple_changes (
    revision bigint NOT NULL,
    kind integer NOT NULL,
    name character varying(2048) NOT NULL,
    data bytea
);



CREATE TABLE public.steeple_event_gaps (
    kind integer NOT NULL,
    event_id bigint NOT NULL,
    since bigint NOT NULL
);



CREATE TABLE public.steeple_meta (
    id integer NOT NULL,
    format integer NOT NULL,
    log_id character varying(64) NOT NULL,
    head bigint NOT NULL,
    trimmed bigint NOT NULL,
    entries_event bigint NOT NULL,
    agents_event bigint NOT NULL
);



CREATE TABLE public.steeple_place (
    id integer NOT NULL,
    place character varying(255) NOT NULL
);



ALTER TABLE ONLY public.attested_node_entries ALTER COLUMN id SET DEFAULT nextval('public.attested_node_entries_id_seq'::regclass);



ALTER TABLE ONLY public.attested_node_entries_events ALTER COLUMN id SET DEFAULT nextval('public.attested_node_entries_events_id_seq'::regclass);



ALTER TABLE ONLY public.bundles ALTER COLUMN id SET DEFAULT nextval('public.bundles_id_seq'::regclass);



ALTER TABLE ONLY public.ca_journals ALTER COLUMN id SET DEFAULT nextval('public.ca_journals_id_seq'::regclass);



ALTER TABLE ONLY public.dns_names ALTER COLUMN id SET DEFAULT nextval('public.dns_names_id_seq'::regclass);



ALTER TABLE ONLY public.federated_trust_domains ALTER COLUMN id SET DEFAULT nextval('public.federated_trust_domains_id_seq'::regclass);



ALTER TABLE ONLY public.join_tokens ALTER COLUMN id SET DEFAULT nextval('public.join_tokens_id_seq'::regclass);



ALTER TABLE ONLY public.migrations ALTER COLUMN id SET DEFAULT nextval('public.migrations_id_seq'::regclass);



ALTER TABLE ONLY public.node_resolver_map_entries ALTER COLUMN id SET DEFAULT nextval('public.node_resolver_map_entries_id_seq'::regclass);



ALTER TABLE ONLY public.registered_entries ALTER COLUMN id SET DEFAULT nextval('public.registered_entries_id_seq'::regclass);



ALTER TABLE ONLY public.registered_entries_events ALTER COLUMN id SET DEFAULT nextval('public.registered_entries_events_id_seq'::regclass);



ALTER TABLE ONLY public.selectors ALTER COLUMN id SET DEFAULT nextval('public.selectors_id_seq'::regclass);



COPY public.attested_node_entries (id, created_at, updated_at, spiffe_id, data_type, serial_number, expires_at, new_serial_number, new_expires_at, can_reattest, agent_version) FROM stdin;
1	2026-11-23 21:09:07+00	2026-11-23 21:09:07+00	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8	join_token	122033562030452990885384196785431910036	2031-11-22 21:09:07+00		\N	f	1.16.0+steeple.0.1.0
2	2026-11-23 21:09:08+00	2026-11-23 21:09:09+00	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9	join_token		2031-11-22 21:09:08+00		\N	f	1.16.0+steeple.0.1.0
\.



COPY public.attested_node_entries_events (id, created_at, updated_at, spiffe_id) FROM stdin;
1	2026-11-23 21:09:07.484144+00	2026-11-23 21:09:07.484144+00	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8
2	2026-11-23 21:09:07.504912+00	2026-11-23 21:09:07.504912+00	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8
3	2026-11-23 21:09:08.489694+00	2026-11-23 21:09:08.489694+00	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9
4	2026-11-23 21:09:08.516018+00	2026-11-23 21:09:08.516018+00	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9
5	2026-11-23 21:09:09.282246+00	2026-11-23 21:09:09.282246+00	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9
\.



COPY public.bundles (id, created_at, updated_at, trust_domain, data) FROM stdin;
2	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	spiffe://other.org	\\x0a127370696666653a2f2f6f746865722e6f72671287040a840430820200308201a5a003020102021049e012ffd00536e12b554886f67386c9300a06082a8648ce3d040302304f310b3009060355040613025553310f300d060355040a1306535049464645312f302d060355040513263938313937313033353339353434313532383131363130323834363239373038343734303537301e170d3236313132333134333033305a170d3336313132303134333034305a304f310b3009060355040613025553310f300d060355040a1306535049464645312f302d0603550405132639383139373130333533393534343135323831313631303238343632393730383437343035373059301306072a8648ce3d020106082a8648ce3d03010703420004d11aa56b3ab8710d31aab5d1af744aea0b65b6c9660578884df615a9ac20a2cb6381ee81f52b78b158fe2540b08e8ee787ec73aef99d4ba464944fb8649d0cc9a3633061300e0603551d0f0101ff040403020106300f0603551d130101ff040530030101ff301d0603551d0e041604145ca6b7bb08c2c38df17c9a211a2b0406c7213566301f0603551d110418301686147370696666653a2f2f6578616d706c652e6f7267300a06082a8648ce3d0403020349003046022100e8d0dab0cb8cd316c0c90f37010e4e18ef83da41ee62054da2248471913e850a022100c2fabee5cb22899779a8f2d83e6d29e6b9f65bba96eb18e557b90fc5261ea18b1a7f0a5b3059301306072a8648ce3d020106082a8648ce3d030107034200047d3927f2eec8882b90f94c932802952ddda47a58274d13e0decbef544ffc6a292e1ffca00dd4f2435f80d63034bc694e637f1b07a213e131ab557c12fa52b5f31220447764564b4e4477797051334870474f544f7747394f3962636c3267746144791a7f0a5b3059301306072a8648ce3d020106082a8648ce3d030107034200045082b44d11ec118b2f58ae4c9c62ae9dbea214c528c48c8a041aff97c9e92e52d1f5c6b00f230cbbd62261cedc07f5704793dcd48695755c368a714ce114f24f12206e704251563447544e5353676c7437785666395754455a3639474738505959762802
1	2026-11-23 21:09:06+00	2026-11-23 21:09:09+00	spiffe://example.org	\\x0a147370696666653a2f2f6578616d706c652e6f72671286040a8304308201ff308201a6a003020102021100d0cf75d5b5741caae823a063afc31c84300a06082a8648ce3d040302304f310b3009060355040613025553310e300c060355040a130553504952453130302e06035504051327323737353536363138353436363538363131323138353135333437363236383538333233303736301e170d3236313132333231303835365a170d3336313132303231303930365a304f310b3009060355040613025553310e300c060355040a130553504952453130302e060355040513273237373535363631383534363635383631313231383531353334373632363835383332333037363059301306072a8648ce3d020106082a8648ce3d030107034200045eea7c611103a1e152f0e1956c26bc0d63622bb5b34f5f9552eb53b7c076fd7da79a9fb86337ea698ac8e3b1c48b9a2825974f0eabc2f031a72d9d9df439f8c1a3633061300e0603551d0f0101ff040403020106300f0603551d130101ff040530030101ff301d0603551d0e04160414720ed6a8745f706c33e1941343be60808c6c75e3301f0603551d110418301686147370696666653a2f2f6578616d706c652e6f7267300a06082a8648ce3d04030203470030440220210b59352d727d98670392055fe463799857f741884115ec439a83c310743ad30220710c9230d1a65a539e6377e52865abdf622c87118bcf346cc34388a79a7257331a85010a5b3059301306072a8648ce3d020106082a8648ce3d03010703420004c2a133adc0a0a4cef7de64ca4aacb3f462ce9541436884085de760cdfff12a0be149c4c5e5b6b51435276c4a876b75c4647a16775a4fbe28461966213784dc451220574678323277734463734e68503030626e4961523975486a364a6b345244443918f2dcc2ee071a85010a5b3059301306072a8648ce3d020106082a8648ce3d03010703420004c5a49f751400c9c02e596e2bbd6a47895cc13b61c494611a005b591ac6fcf2d5671375fbcb52ae6ca110c510a08fe21dea520c6f5667df1b9e67b8ae767af195122063466e376c7752756164674a5163506a6f67763461594e4c5332693231366e4b18f5dcc2ee072802
\.



COPY public.ca_journals (id, created_at, updated_at, data, active_x509_authority_id, active_jwt_authority_id) FROM stdin;
1	2026-11-23 21:09:06+00	2026-11-23 21:09:09+00	\\x0ac1040a014110f2d692d8061a8304308201ff308201a6a003020102021100d0cf75d5b5741caae823a063afc31c84300a06082a8648ce3d040302304f310b3009060355040613025553310e300c060355040a130553504952453130302e06035504051327323737353536363138353436363538363131323138353135333437363236383538333233303736301e170d3236313132333231303835365a170d3336313132303231303930365a304f310b3009060355040613025553310e300c060355040a130553504952453130302e060355040513273237373535363631383534363635383631313231383531353334373632363835383332333037363059301306072a8648ce3d020106082a8648ce3d030107034200045eea7c611103a1e152f0e1956c26bc0d63622bb5b34f5f9552eb53b7c076fd7da79a9fb86337ea698ac8e3b1c48b9a2825974f0eabc2f031a72d9d9df439f8c1a3633061300e0603551d0f0101ff040403020106300f0603551d130101ff040530030101ff301d0603551d0e04160414720ed6a8745f706c33e1941343be60808c6c75e3301f0603551d110418301686147370696666653a2f2f6578616d706c652e6f7267300a06082a8648ce3d04030203470030440220210b59352d727d98670392055fe463799857f741884115ec439a83c310743ad30220710c9230d1a65a539e6377e52865abdf622c87118bcf346cc34388a79a725733280332283732306564366138373435663730366333336531393431333433626536303830386336633735653338f2dcc2ee0712b2010a014110f2d692d80618f2dcc2ee072220574678323277734463734e68503030626e4961523975486a364a6b34524444392a5b3059301306072a8648ce3d020106082a8648ce3d03010703420004c2a133adc0a0a4cef7de64ca4aacb3f462ce9541436884085de760cdfff12a0be149c4c5e5b6b51435276c4a876b75c4647a16775a4fbe28461966213784dc4530033a20574678323277734463734e68503030626e4961523975486a364a6b345244443912b2010a014210f5d692d80618f5dcc2ee07222063466e376c7752756164674a5163506a6f67763461594e4c5332693231366e4b2a5b3059301306072a8648ce3d020106082a8648ce3d03010703420004c5a49f751400c9c02e596e2bbd6a47895cc13b61c494611a005b591ac6fcf2d5671375fbcb52ae6ca110c510a08fe21dea520c6f5667df1b9e67b8ae767af19530023a2063466e376c7752756164674a5163506a6f67763461594e4c5332693231366e4b	720ed6a8745f706c33e1941343be60808c6c75e3	
\.



COPY public.dns_names (id, created_at, updated_at, registered_entry_id, value) FROM stdin;
3	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	13	b.example.org
4	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	13	a.example.org
\.



COPY public.federated_registration_entries (bundle_id, registered_entry_id) FROM stdin;
2	13
\.



COPY public.federated_trust_domains (id, created_at, updated_at, trust_domain, bundle_endpoint_url, bundle_endpoint_profile, endpoint_spiffe_id, implicit) FROM stdin;
1	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	other.org	https://127.0.0.1:1/bundle	https_spiffe	spiffe://other.org/spire/server	f
2	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	web.org	https://127.0.0.1:1/	https_web		f
\.



COPY public.join_tokens (id, created_at, updated_at, token, expiry) FROM stdin;
3	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	87122262-5c98-4249-808d-735bec91ee16	1795468748
\.



COPY public.migrations (id, created_at, updated_at, version, code_version) FROM stdin;
1	2026-11-23 21:09:05.958128+00	2026-11-23 21:09:05.958128+00	25	1.16.0+steeple.0.1.0
\.



COPY public.node_resolver_map_entries (id, created_at, updated_at, spiffe_id, type, value) FROM stdin;
\.



COPY public.registered_entries (id, created_at, updated_at, entry_id, spiffe_id, parent_id, ttl, admin, downstream, expiry, revision_number, store_svid, hint, jwt_svid_ttl, additional_attributes) FROM stdin;
1	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	e75b3132-1545-4b4c-9405-61e4d137ba4a	spiffe://example.org/node1	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8	0	f	f	0	0	f		0	\N
2	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	18612f59-d840-4fb3-a410-e546cbeb5f19	spiffe://example.org/node2	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9	0	f	f	0	0	f		0	\N
3	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	3757c65c-6196-48f0-b45d-e69e5fe3cc10	spiffe://example.org/w/1	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
4	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	58d3b761-16f5-449c-9b47-238797690c1e	spiffe://example.org/w/2	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
5	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	d0208cf6-fade-4de0-931a-46c7607f0dc5	spiffe://example.org/w/3	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
6	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	a9c2bfb0-e9a3-4b79-933e-014759d727b0	spiffe://example.org/w/4	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
7	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	0767f532-e59a-4d45-a6e3-904849b69537	spiffe://example.org/w/5	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
8	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	067dbb8e-ba1e-4650-a64b-7263b878daed	spiffe://example.org/w/6	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
9	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	76aa2fae-a1bc-48c4-9cbc-6f63cbdd482f	spiffe://example.org/w/7	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
10	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	8f4263f6-79a7-435a-93ca-bb79e4955ea5	spiffe://example.org/w/8	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
11	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	4fe10691-5cd8-4e11-b821-012c4a5b9f83	spiffe://example.org/w/9	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
12	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	b75c0ab3-ea1b-483d-8e2c-28d073233ff0	spiffe://example.org/w/10	spiffe://example.org/node1	0	f	f	0	0	f		0	\N
14	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	f51477be-51b8-4bee-81fd-b41a020f6e71	spiffe://example.org/admin	spiffe://example.org/node1	0	t	f	0	0	f		0	\N
15	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	9fdeb465-2c87-4608-985c-67be03c5179b	spiffe://example.org/down	spiffe://example.org/node1	0	f	t	0	0	f		0	\N
16	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	52cec10e-2b0d-4dc6-8e17-d06dd9ff0b97	spiffe://example.org/stored	spiffe://example.org/node1	0	f	f	0	0	t		0	\N
17	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	cf8e473b-e5cd-46ec-ab3f-1174d5199cbd	spiffe://example.org/attrs	spiffe://example.org/node1	0	f	f	0	0	f		0	\\x08011001
18	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	f595d0d6-a9c1-42fb-bcfd-01859002d1e2	spiffe://example.org/alias	spiffe://example.org/spire/server	0	f	f	0	0	f		0	\N
19	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	7bae0c08-2abf-41ae-87ef-bf86c29fd26b	spiffe://example.org/below	spiffe://example.org/w/1	0	f	f	0	0	f		0	\N
13	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	my-own-id	spiffe://example.org/Full	spiffe://example.org/node1	7200	f	f	2000000000	1	f	outside	120	\N
21	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	c8b67ae9-7b4f-400f-89f2-0b1062948bd7	spiffe://example.org/unused	spiffe://example.org/spire/agent/join_token/87122262-5c98-4249-808d-735bec91ee16	0	f	f	0	0	f		0	\N
\.



COPY public.registered_entries_events (id, created_at, updated_at, entry_id) FROM stdin;
1	2026-11-23 21:09:06.772038+00	2026-11-23 21:09:06.772038+00	e75b3132-1545-4b4c-9405-61e4d137ba4a
2	2026-11-23 21:09:07.005378+00	2026-11-23 21:09:07.005378+00	18612f59-d840-4fb3-a410-e546cbeb5f19
3	2026-11-23 21:09:08.597495+00	2026-11-23 21:09:08.597495+00	3757c65c-6196-48f0-b45d-e69e5fe3cc10
4	2026-11-23 21:09:08.604845+00	2026-11-23 21:09:08.604845+00	58d3b761-16f5-449c-9b47-238797690c1e
5	2026-11-23 21:09:08.610318+00	2026-11-23 21:09:08.610319+00	d0208cf6-fade-4de0-931a-46c7607f0dc5
6	2026-11-23 21:09:08.627775+00	2026-11-23 21:09:08.627775+00	a9c2bfb0-e9a3-4b79-933e-014759d727b0
7	2026-11-23 21:09:08.640848+00	2026-11-23 21:09:08.640848+00	0767f532-e59a-4d45-a6e3-904849b69537
8	2026-11-23 21:09:08.647575+00	2026-11-23 21:09:08.647575+00	067dbb8e-ba1e-4650-a64b-7263b878daed
9	2026-11-23 21:09:08.654408+00	2026-11-23 21:09:08.654408+00	76aa2fae-a1bc-48c4-9cbc-6f63cbdd482f
10	2026-11-23 21:09:08.660977+00	2026-11-23 21:09:08.660977+00	8f4263f6-79a7-435a-93ca-bb79e4955ea5
11	2026-11-23 21:09:08.673639+00	2026-11-23 21:09:08.673639+00	4fe10691-5cd8-4e11-b821-012c4a5b9f83
12	2026-11-23 21:09:08.682724+00	2026-11-23 21:09:08.682724+00	b75c0ab3-ea1b-483d-8e2c-28d073233ff0
13	2026-11-23 21:09:08.690332+00	2026-11-23 21:09:08.690332+00	my-own-id
14	2026-11-23 21:09:08.697104+00	2026-11-23 21:09:08.697104+00	f51477be-51b8-4bee-81fd-b41a020f6e71
15	2026-11-23 21:09:08.705213+00	2026-11-23 21:09:08.705213+00	9fdeb465-2c87-4608-985c-67be03c5179b
16	2026-11-23 21:09:08.709809+00	2026-11-23 21:09:08.709809+00	52cec10e-2b0d-4dc6-8e17-d06dd9ff0b97
17	2026-11-23 21:09:08.714493+00	2026-11-23 21:09:08.714494+00	cf8e473b-e5cd-46ec-ab3f-1174d5199cbd
18	2026-11-23 21:09:08.7191+00	2026-11-23 21:09:08.7191+00	f595d0d6-a9c1-42fb-bcfd-01859002d1e2
19	2026-11-23 21:09:08.730135+00	2026-11-23 21:09:08.730135+00	7bae0c08-2abf-41ae-87ef-bf86c29fd26b
20	2026-11-23 21:09:08.743348+00	2026-11-23 21:09:08.743349+00	gone
21	2026-11-23 21:09:08.756881+00	2026-11-23 21:09:08.756881+00	gone
22	2026-11-23 21:09:08.765144+00	2026-11-23 21:09:08.765144+00	my-own-id
23	2026-11-23 21:09:08.779163+00	2026-11-23 21:09:08.779163+00	c8b67ae9-7b4f-400f-89f2-0b1062948bd7
\.



COPY public.selectors (id, created_at, updated_at, registered_entry_id, type, value) FROM stdin;
1	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	1	spiffe_id	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8
2	2026-11-23 21:09:06+00	2026-11-23 21:09:06+00	2	spiffe_id	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9
3	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	3	unix	uid:1
4	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	3	unix	gid:2
5	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	3	k8s	ns:é1
6	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	4	unix	uid:2
7	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	4	unix	gid:3
8	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	4	k8s	ns:é2
9	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	5	unix	uid:3
10	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	5	unix	gid:4
11	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	5	k8s	ns:é3
12	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	6	unix	uid:4
13	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	6	unix	gid:5
14	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	6	k8s	ns:é4
15	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	7	unix	uid:5
16	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	7	unix	gid:6
17	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	7	k8s	ns:é5
18	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	8	unix	uid:6
19	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	8	unix	gid:7
20	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	8	k8s	ns:é6
21	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	9	unix	uid:7
22	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	9	unix	gid:8
23	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	9	k8s	ns:é7
24	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	10	unix	uid:8
25	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	10	unix	gid:9
26	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	10	k8s	ns:é8
27	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	11	unix	uid:9
28	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	11	unix	gid:10
29	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	11	k8s	ns:é9
30	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	12	unix	uid:10
31	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	12	unix	gid:11
32	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	12	k8s	ns:é10
34	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	14	unix	uid:2000
35	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	15	unix	uid:2001
36	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	16	x	y
37	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	17	unix	uid:2002
38	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	18	join_token	x
39	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	18	a	b
40	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	19	c	d
42	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	13	unix	uid:0
43	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	13	unix	user:root
44	2026-11-23 21:09:08+00	2026-11-23 21:09:08+00	21	spiffe_id	spiffe://example.org/spire/agent/join_token/87122262-5c98-4249-808d-735bec91ee16
\.



COPY public.steeple_bundle_marks (trust_domain, mark) FROM stdin;
spiffe://other.org	1795468146.000000/802
spiffe://example.org	1795468149.000000/817
\.



COPY public.steeple_changes (revision, kind, name, data) FROM stdin;
1	5	spiffe://example.org	\\x
2	0		\N
3	5	spiffe://example.org	\\x2801
4	0		\N
5	5	spiffe://other.org	\\x2802
6	9	spiffe://other.org	\N
7	9	spiffe://web.org	\N
8	0		\N
9	1	e75b3132-1545-4b4c-9405-61e4d137ba4a	\\x0a5d0a097370696666655f696412507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f64326463663139332d316338392d346262342d383436362d36633130323864393166613812507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f64326463663139332d316338392d346262342d383436362d3663313032386439316661381a1a7370696666653a2f2f6578616d706c652e6f72672f6e6f646531322465373562333133322d313534352d346234632d393430352d36316534643133376261346178f2d692d806
10	0		\N
11	1	18612f59-d840-4fb3-a410-e546cbeb5f19	\\x0a5d0a097370696666655f696412507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f36373637633633332d333230652d346331382d623032622d63313233666632613936613912507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f36373637633633332d333230652d346331382d623032622d6331323366663261393661391a1a7370696666653a2f2f6578616d706c652e6f72672f6e6f646532322431383631326635392d643834302d346662332d613431302d65353436636265623566313978f2d692d806
12	0		\N
13	3	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8	\\x0a507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f64326463663139332d316338392d346262342d383436362d366331303238643931666138120a6a6f696e5f746f6b656e1a2731323230333335363230333034353239393038383533383431393637383534333139313030333620f3d9aaa307
14	3	spiffe://example.org/spire/agent/join_token/d2dcf193-1c89-4bb4-8466-6c1028d91fa8	\\x0a507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f64326463663139332d316338392d346262342d383436362d366331303238643931666138120a6a6f696e5f746f6b656e1a2731323230333335363230333034353239393038383533383431393637383534333139313030333620f3d9aaa3074a14312e31362e302b73746565706c652e302e312e30
15	0		\N
16	3	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9	\\x0a507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f36373637633633332d333230652d346331382d623032622d633132336666326139366139120a6a6f696e5f746f6b656e1a2732353034343938313631313133333136373038373534343137323339323939393431353637303820f4d9aaa307
17	3	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9	\\x0a507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f36373637633633332d333230652d346331382d623032622d633132336666326139366139120a6a6f696e5f746f6b656e1a2732353034343938313631313133333136373038373534343137323339323939393431353637303820f4d9aaa3074a14312e31362e302b73746565706c652e302e312e30
18	1	3757c65c-6196-48f0-b45d-e69e5fe3cc10	\\x0a0d0a04756e697812057569643a310a0d0a04756e697812056769643a320a0d0a036b387312066e733ac3a931121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f31322433373537633635632d363139362d343866302d623435642d65363965356665336363313078f4d692d806
19	1	58d3b761-16f5-449c-9b47-238797690c1e	\\x0a0d0a04756e697812057569643a320a0d0a04756e697812056769643a330a0d0a036b387312066e733ac3a932121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f32322435386433623736312d313666352d343439632d396234372d32333837393736393063316578f4d692d806
20	1	d0208cf6-fade-4de0-931a-46c7607f0dc5	\\x0a0d0a04756e697812057569643a330a0d0a04756e697812056769643a340a0d0a036b387312066e733ac3a933121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f33322464303230386366362d666164652d346465302d393331612d34366337363037663064633578f4d692d806
21	1	a9c2bfb0-e9a3-4b79-933e-014759d727b0	\\x0a0d0a04756e697812057569643a340a0d0a04756e697812056769643a350a0d0a036b387312066e733ac3a934121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f34322461396332626662302d653961332d346237392d393333652d30313437353964373237623078f4d692d806
22	1	0767f532-e59a-4d45-a6e3-904849b69537	\\x0a0d0a04756e697812057569643a350a0d0a04756e697812056769643a360a0d0a036b387312066e733ac3a935121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f35322430373637663533322d653539612d346434352d613665332d39303438343962363935333778f4d692d806
23	1	067dbb8e-ba1e-4650-a64b-7263b878daed	\\x0a0d0a04756e697812057569643a360a0d0a04756e697812056769643a370a0d0a036b387312066e733ac3a936121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f36322430363764626238652d626131652d343635302d613634622d37323633623837386461656478f4d692d806
24	1	76aa2fae-a1bc-48c4-9cbc-6f63cbdd482f	\\x0a0d0a04756e697812057569643a370a0d0a04756e697812056769643a380a0d0a036b387312066e733ac3a937121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f37322437366161326661652d613162632d343863342d396362632d36663633636264643438326678f4d692d806
25	1	8f4263f6-79a7-435a-93ca-bb79e4955ea5	\\x0a0d0a04756e697812057569643a380a0d0a04756e697812056769643a390a0d0a036b387312066e733ac3a938121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f38322438663432363366362d373961372d343335612d393363612d62623739653439353565613578f4d692d806
26	1	4fe10691-5cd8-4e11-b821-012c4a5b9f83	\\x0a0d0a04756e697812057569643a390a0e0a04756e697812066769643a31300a0d0a036b387312066e733ac3a939121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a187370696666653a2f2f6578616d706c652e6f72672f772f39322434666531303639312d356364382d346531312d623832312d30313263346135623966383378f4d692d806
27	1	b75c0ab3-ea1b-483d-8e2c-28d073233ff0	\\x0a0e0a04756e697812067569643a31300a0e0a04756e697812066769643a31310a0e0a036b387312076e733ac3a93130121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a197370696666653a2f2f6578616d706c652e6f72672f772f3130322462373563306162332d656131622d343833642d386532632d32386430373332333366663078f4d692d806
28	1	my-own-id	\\x0a0d0a04756e697812057569643a30121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a197370696666653a2f2f6578616d706c652e6f72672f46756c6c20a0382a127370696666653a2f2f6f746865722e6f726732096d792d6f776e2d69644880a8d6b907520d612e6578616d706c652e6f7267520d622e6578616d706c652e6f726768787206696e7369646578f4d692d806
29	1	f51477be-51b8-4bee-81fd-b41a020f6e71	\\x0a100a04756e697812087569643a32303030121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a1a7370696666653a2f2f6578616d706c652e6f72672f61646d696e322466353134373762652d353162382d346265652d383166642d623431613032306636653731380178f4d692d806
30	1	9fdeb465-2c87-4608-985c-67be03c5179b	\\x0a100a04756e697812087569643a32303031121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a197370696666653a2f2f6578616d706c652e6f72672f646f776e322439666465623436352d326338372d343630382d393835632d363762653033633531373962400178f4d692d806
31	1	52cec10e-2b0d-4dc6-8e17-d06dd9ff0b97	\\x0a060a0178120179121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a1b7370696666653a2f2f6578616d706c652e6f72672f73746f726564322435326365633130652d326230642d346463362d386531372d643036646439666630623937600178f4d692d806
32	1	cf8e473b-e5cd-46ec-ab3f-1174d5199cbd	\\x0a100a04756e697812087569643a32303032121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a1a7370696666653a2f2f6578616d706c652e6f72672f6174747273322463663865343733622d653563642d343665632d616233662d31313734643531393963626478f4d692d80682010408011001
33	1	f595d0d6-a9c1-42fb-bcfd-01859002d1e2	\\x0a0f0a0a6a6f696e5f746f6b656e1201780a060a016112016212217370696666653a2f2f6578616d706c652e6f72672f73706972652f7365727665721a1a7370696666653a2f2f6578616d706c652e6f72672f616c696173322466353935643064362d613963312d343266622d626366642d30313835393030326431653278f4d692d806
34	1	7bae0c08-2abf-41ae-87ef-bf86c29fd26b	\\x0a060a016312016412187370696666653a2f2f6578616d706c652e6f72672f772f311a1a7370696666653a2f2f6578616d706c652e6f72672f62656c6f77322437626165306330382d326162662d343161652d383765662d62663836633239666432366278f4d692d806
35	1	gone	\\x0a060a0163120164121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a197370696666653a2f2f6578616d706c652e6f72672f676f6e653204676f6e6578f4d692d806
36	2	gone	\N
37	1	my-own-id	\\x0a0d0a04756e697812057569643a300a110a04756e69781209757365723a726f6f74121a7370696666653a2f2f6578616d706c652e6f72672f6e6f6465311a197370696666653a2f2f6578616d706c652e6f72672f46756c6c20a0382a127370696666653a2f2f6f746865722e6f726732096d792d6f776e2d69644880a8d6b907520d622e6578616d706c652e6f7267520d612e6578616d706c652e6f72675801687872076f75747369646578f4d692d806
38	0		\N
39	1	c8b67ae9-7b4f-400f-89f2-0b1062948bd7	\\x0a5d0a097370696666655f696412507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f38373132323236322d356339382d343234392d383038642d37333562656339316565313612507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f38373132323236322d356339382d343234392d383038642d3733356265633931656531361a1b7370696666653a2f2f6578616d706c652e6f72672f756e75736564322463386236376165392d376234662d343030662d383966322d30623130363239343862643778f4d692d806
40	3	spiffe://example.org/spire/agent/join_token/6767c633-320e-4c18-b02b-c123ff2a96a9	\\x0a507370696666653a2f2f6578616d706c652e6f72672f73706972652f6167656e742f6a6f696e5f746f6b656e2f36373637633633332d333230652d346331382d623032622d633132336666326139366139120a6a6f696e5f746f6b656e20f4d9aaa3074a14312e31362e302b73746565706c652e302e312e30
41	5	spiffe://example.org	\\x2802
42	0		\N
\.



COPY public.steeple_event_gaps (kind, event_id, since) FROM stdin;
\.



COPY public.steeple_meta (id, format, log_id, head, trimmed, entries_event, agents_event) FROM stdin;
1	1	510955c3-0af8-4eae-b908-4437fc4d05cc	42	0	23	5
\.



COPY public.steeple_place (id, place) FROM stdin;
1	16385/16520/00000001
\.



SELECT pg_catalog.setval('public.attested_node_entries_events_id_seq', 5, true);



SELECT pg_catalog.setval('public.attested_node_entries_id_seq', 2, true);



SELECT pg_catalog.setval('public.bundles_id_seq', 2, true);



SELECT pg_catalog.setval('public.ca_journals_id_seq', 1, true);



SELECT pg_catalog.setval('public.dns_names_id_seq', 4, true);



SELECT pg_catalog.setval('public.federated_trust_domains_id_seq', 2, true);



SELECT pg_catalog.setval('public.join_tokens_id_seq', 3, true);



SELECT pg_catalog.setval('public.migrations_id_seq', 1, true);



SELECT pg_catalog.setval('public.node_resolver_map_entries_id_seq', 1, false);



SELECT pg_catalog.setval('public.registered_entries_events_id_seq', 23, true);



SELECT pg_catalog.setval('public.registered_entries_id_seq', 21, true);



SELECT pg_catalog.setval('public.selectors_id_seq', 44, true);



ALTER TABLE ONLY public.attested_node_entries_events
    ADD CONSTRAINT attested_node_entries_events_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.attested_node_entries
    ADD CONSTRAINT attested_node_entries_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.bundles
    ADD CONSTRAINT bundles_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.ca_journals
    ADD CONSTRAINT ca_journals_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.dns_names
    ADD CONSTRAINT dns_names_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.federated_registration_entries
    ADD CONSTRAINT federated_registration_entries_pkey PRIMARY KEY (bundle_id, registered_entry_id);



ALTER TABLE ONLY public.federated_trust_domains
    ADD CONSTRAINT federated_trust_domains_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.node_resolver_map_entries
    ADD CONSTRAINT node_resolver_map_entries_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.registered_entries_events
    ADD CONSTRAINT registered_entries_events_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.registered_entries
    ADD CONSTRAINT registered_entries_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.selectors
    ADD CONSTRAINT selectors_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.steeple_bundle_marks
    ADD CONSTRAINT steeple_bundle_marks_pkey PRIMARY KEY (trust_domain);



ALTER TABLE ONLY public.steeple_changes
    ADD CONSTRAINT steeple_changes_pkey PRIMARY KEY (revision);



ALTER TABLE ONLY public.steeple_event_gaps
    ADD CONSTRAINT steeple_event_gaps_pkey PRIMARY KEY (kind, event_id);



ALTER TABLE ONLY public.steeple_meta
    ADD CONSTRAINT steeple_meta_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.steeple_place
    ADD CONSTRAINT steeple_place_pkey PRIMARY KEY (id);



CREATE INDEX idx_attested_node_entries_expires_at ON public.attested_node_entries USING btree (expires_at);



CREATE INDEX idx_ca_journals_active_jwt_authority_id ON public.ca_journals USING btree (active_jwt_authority_id);



CREATE INDEX idx_ca_journals_active_x509_authority_id ON public.ca_journals USING btree (active_x509_authority_id);



CREATE UNIQUE INDEX idx_dns_entry ON public.dns_names USING btree (registered_entry_id, value);



CREATE INDEX idx_federated_registration_entries_registered_entry_id ON public.federated_registration_entries USING btree (registered_entry_id);



CREATE UNIQUE INDEX idx_node_resolver_map ON public.node_resolver_map_entries USING btree (spiffe_id, type, value);



CREATE INDEX idx_registered_entries_expiry ON public.registered_entries USING btree (expiry);



CREATE INDEX idx_registered_entries_hint ON public.registered_entries USING btree (hint);



CREATE INDEX idx_registered_entries_parent_id ON public.registered_entries USING btree (parent_id);



CREATE INDEX idx_registered_entries_spiffe_id ON public.registered_entries USING btree (spiffe_id);



CREATE UNIQUE INDEX idx_selector_entry ON public.selectors USING btree (registered_entry_id, type, value);



CREATE INDEX idx_selectors_type_value ON public.selectors USING btree (type, value);



CREATE INDEX steeple_registered_entries_identity ON public.registered_entries USING btree (spiffe_id, parent_id);



CREATE UNIQUE INDEX uix_attested_node_entries_spiffe_id ON public.attested_node_entries USING btree (spiffe_id);



CREATE UNIQUE INDEX uix_bundles_trust_domain ON public.bundles USING btree (trust_domain);



CREATE UNIQUE INDEX uix_federated_trust_domains_trust_domain ON public.federated_trust_domains USING btree (trust_domain);



CREATE UNIQUE INDEX uix_join_tokens_token ON public.join_tokens USING btree (token);



CREATE UNIQUE INDEX uix_registered_entries_entry_id ON public.registered_entries USING btree (entry_id);




