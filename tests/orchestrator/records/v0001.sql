BEGIN TRANSACTION;
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE arms (
	arm_id VARCHAR(16) NOT NULL, 
	spec JSON NOT NULL, 
	workload VARCHAR(100) NOT NULL, 
	backbone VARCHAR(100) NOT NULL, 
	block VARCHAR(100) NOT NULL, 
	params BIGINT, 
	executed_macs BIGINT, 
	profile JSON, 
	PRIMARY KEY (arm_id)
);
INSERT INTO "arms" VALUES('0000000000000000','{"workload": {"name": "digits"}, "backbone": {"name": "resnet_tiny", "frames": 8}, "block": {"name": "none"}, "insertion": {"res3": [1]}, "recipe": {"epochs": 2, "batch": 32}, "protocol": {"clips": 1}}','digits','resnet_tiny','none',10000000000,10000000000000,'{"params": 10000000000, "executed_macs": 10000000000000}');
INSERT INTO "arms" VALUES('0000000000000001','{"workload": {"name": "digits"}, "backbone": {"name": "resnet_tiny", "frames": 8}, "block": {"name": "nl"}, "insertion": {"res3": [1]}, "recipe": {"epochs": 2, "batch": 32}, "protocol": {"clips": 1}}','digits','resnet_tiny','nl',10000000001,10000000000001,'{"params": 10000000001, "executed_macs": 10000000000001}');
CREATE TABLE attempts (
	trial_id VARCHAR(16) NOT NULL, 
	number INTEGER NOT NULL, 
	owner VARCHAR(100) NOT NULL, 
	started_at DOUBLE NOT NULL, 
	ended_at DOUBLE, 
	outcome VARCHAR(20), 
	cause VARCHAR(40), 
	message TEXT, 
	traceback TEXT, 
	micro_batch INTEGER, 
	first_epoch INTEGER, 
	host VARCHAR(200), 
	device VARCHAR(200), 
	environment_id VARCHAR(16), 
	PRIMARY KEY (trial_id, number), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id), 
	FOREIGN KEY(environment_id) REFERENCES environments (environment_id)
);
INSERT INTO "attempts" VALUES('0000000000000000',1,'driver',100.0,103.0,'finished',NULL,NULL,NULL,NULL,0,'here','cpu','6a668dec0e2df1c7');
INSERT INTO "attempts" VALUES('0000000000000001',1,'driver',100.0,110.0,'failed','bug','boom','Traceback',NULL,NULL,'here','cpu','6a668dec0e2df1c7');
INSERT INTO "attempts" VALUES('0000000100000000',1,'driver',100.0,NULL,NULL,NULL,NULL,NULL,NULL,0,'here','cpu','6a668dec0e2df1c7');
CREATE TABLE checkpoints (
	trial_id VARCHAR(16) NOT NULL, 
	epoch INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "checkpoints" VALUES('0000000100000000',0,'/ckpt/epoch-0.pt');
CREATE TABLE clip_sets (
	clip_set_id VARCHAR(16) NOT NULL, 
	names BLOB NOT NULL, 
	labels BLOB NOT NULL, 
	classes INTEGER NOT NULL, 
	PRIMARY KEY (clip_set_id)
);
INSERT INTO "clip_sets" VALUES('07772de6a83ff275',X'789C8B564ACEC92C504854D25180B0624A0D0C52D2C05CA55800886F086C',X'010000000000000000000000',2);
CREATE TABLE diffs (
	diff_id VARCHAR(16) NOT NULL, 
	content BLOB NOT NULL, 
	PRIMARY KEY (diff_id)
);
INSERT INTO "diffs" VALUES('0123456789abcdef',X'64696666');
CREATE TABLE environments (
	environment_id VARCHAR(16) NOT NULL, 
	facts JSON NOT NULL, 
	PRIMARY KEY (environment_id)
);
INSERT INTO "environments" VALUES('6a668dec0e2df1c7','{"python": "3.11", "cores": 2}');
CREATE TABLE epoch_metrics (
	trial_id VARCHAR(16) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	epoch INTEGER NOT NULL, 
	value DOUBLE, 
	seconds DOUBLE NOT NULL, 
	PRIMARY KEY (trial_id, name, epoch), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "epoch_metrics" VALUES('0000000000000000','train_loss',0,0.5,1.5);
INSERT INTO "epoch_metrics" VALUES('0000000000000000','top1_percent',0,50.0,1.5);
INSERT INTO "epoch_metrics" VALUES('0000000000000000','train_loss',1,0.5,1.5);
INSERT INTO "epoch_metrics" VALUES('0000000000000000','top1_percent',1,50.0,1.5);
INSERT INTO "epoch_metrics" VALUES('0000000100000000','train_loss',0,0.5,1.5);
INSERT INTO "epoch_metrics" VALUES('0000000100000000','top1_percent',0,50.0,1.5);
CREATE TABLE leases (
	owner VARCHAR(100) NOT NULL, 
	lease_until DOUBLE NOT NULL, 
	driver JSON, 
	PRIMARY KEY (owner)
);
INSERT INTO "leases" VALUES('driver',70.0,'{"command": ["longrange", "run", "quickstart"]}');
CREATE TABLE locks (
	name VARCHAR(400) NOT NULL, 
	holder VARCHAR(100) NOT NULL, 
	until DOUBLE NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE mirror (
	trial_id VARCHAR(16) NOT NULL, 
	store VARCHAR(300) NOT NULL, 
	sweep_id INTEGER NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	state VARCHAR(12) NOT NULL, 
	ended_at DOUBLE NOT NULL, 
	PRIMARY KEY (trial_id, store, sweep_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id), 
	FOREIGN KEY(sweep_id) REFERENCES sweeps (id) ON DELETE CASCADE
);
CREATE TABLE predictions (
	trial_id VARCHAR(16) NOT NULL, 
	clip_set_id VARCHAR(16) NOT NULL, 
	correct BLOB NOT NULL, 
	scores BLOB NOT NULL, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id), 
	FOREIGN KEY(clip_set_id) REFERENCES clip_sets (clip_set_id)
);
INSERT INTO "predictions" VALUES('0000000000000000','07772de6a83ff275',X'010100',X'7801633061B060B06100010700062400E9');
CREATE TABLE rejections (
	id INTEGER NOT NULL, 
	sweep_id INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	settings JSON NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(sweep_id) REFERENCES sweeps (id) ON DELETE CASCADE
);
INSERT INTO "rejections" VALUES(1,1,'g1=7','{"block.g1": 7}','7 does not divide 64 channels');
CREATE TABLE results (
	trial_id VARCHAR(16) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	value DOUBLE, 
	PRIMARY KEY (trial_id, name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "results" VALUES('0000000000000000','top1_percent',75.0);
CREATE TABLE samples (
	trial_id VARCHAR(16) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	samples JSON NOT NULL, 
	PRIMARY KEY (trial_id, name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "samples" VALUES('0000000000000000','latency_ms','[1.0, 2.0, 1.5]');
CREATE TABLE sweep_arms (
	sweep_id INTEGER NOT NULL, 
	arm_id VARCHAR(16) NOT NULL, 
	position INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	settings JSON NOT NULL, 
	is_control BOOLEAN NOT NULL, 
	PRIMARY KEY (sweep_id, arm_id), 
	FOREIGN KEY(sweep_id) REFERENCES sweeps (id) ON DELETE CASCADE, 
	FOREIGN KEY(arm_id) REFERENCES arms (arm_id)
);
INSERT INTO "sweep_arms" VALUES(1,'0000000000000000',0,'arm 0','{"block.name": "none"}',1);
INSERT INTO "sweep_arms" VALUES(1,'0000000000000001',1,'arm 1','{"block.name": "nl"}',0);
CREATE TABLE sweep_trials (
	sweep_id INTEGER NOT NULL, 
	trial_id VARCHAR(16) NOT NULL, 
	position INTEGER NOT NULL, 
	PRIMARY KEY (sweep_id, trial_id), 
	FOREIGN KEY(sweep_id) REFERENCES sweeps (id) ON DELETE CASCADE, 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "sweep_trials" VALUES(1,'0000000000000000',0);
INSERT INTO "sweep_trials" VALUES(1,'0000000100000000',1);
INSERT INTO "sweep_trials" VALUES(1,'0000000000000001',2);
INSERT INTO "sweep_trials" VALUES(1,'0000000100000001',3);
CREATE TABLE sweeps (
	id INTEGER NOT NULL, 
	uid VARCHAR(32) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	question TEXT NOT NULL, 
	definition JSON NOT NULL, 
	reproduces JSON, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "sweeps" VALUES(1,'cce4952fd9c449ee87df23847eec0bb8','which <block>?','Which block?','{"seeds": 2}',NULL,1.0,1.0);
CREATE TABLE trials (
	trial_id VARCHAR(16) NOT NULL, 
	arm_id VARCHAR(16) NOT NULL, 
	seed BIGINT NOT NULL, 
	state VARCHAR(12) NOT NULL, 
	code_fingerprint VARCHAR(64) NOT NULL, 
	data_fingerprint VARCHAR(64) NOT NULL, 
	estimated_seconds DOUBLE, 
	owner VARCHAR(100), 
	forgiven INTEGER NOT NULL, 
	started_at DOUBLE, 
	ended_at DOUBLE, 
	notes JSON, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(arm_id) REFERENCES arms (arm_id)
);
INSERT INTO "trials" VALUES('0000000000000000','0000000000000000',0,'finished','code-1','data-1',8.5,NULL,0,100.0,103.0,'["skipped 1 clip"]');
INSERT INTO "trials" VALUES('0000000100000000','0000000000000001',0,'running','code-1','data-1',8.5,'driver',0,100.0,NULL,NULL);
INSERT INTO "trials" VALUES('0000000000000001','0000000000000000',1,'failed','code-1','data-1',8.5,NULL,0,100.0,110.0,NULL);
INSERT INTO "trials" VALUES('0000000100000001','0000000000000001',1,'planned','code-1','data-1',8.5,'driver',0,NULL,NULL,NULL);
CREATE INDEX ix_arms_backbone ON arms (backbone);
CREATE INDEX ix_arms_block ON arms (block);
CREATE INDEX ix_arms_workload ON arms (workload);
CREATE INDEX ix_rejections_sweep_id ON rejections (sweep_id);
CREATE INDEX ix_trials_state ON trials (state);
CREATE INDEX ix_trials_arm_state ON trials (arm_id, state);
CREATE INDEX ix_trials_owner ON trials (owner);
CREATE INDEX ix_results_name ON results (name);
COMMIT;
