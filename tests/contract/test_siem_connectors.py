"""The connector configurations parse, use documented keys, read our topics, and are set to lose or double nothing.

The tables of keys name their source; nothing here was run against a real product.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas import generate
from schemas.topics import DECISION_TOPICS, TOPICS, Topic
from tests.support.findings import FINDINGS
from tests.support.ingest_pipeline import value_at
from tests.support.logstash import Block, read_logstash

SIEM = generate.ROOT.parent / "deploy/siem"
DECISIONS = [topic.value for topic in DECISION_TOPICS.values()]
UID = "metadata.uid"

CONNECT = {"connector.class", "tasks.max", "topics", "key.converter", "value.converter", "errors.tolerance"} | {
    "errors.log.enable",
    "value.converter.schemas.enable",
    "consumer.override.isolation.level",
    "consumer.override.auto.offset.reset",
    "transforms",
    "transforms.index.type",
    "transforms.index.regex",
    "transforms.index.replacement",
}
"""kafka.apache.org/documentation/#connectconfigs, #connect_transforms, and KIP-458 for consumer.override."""

SPLUNK = {
    *(f"splunk.hec.{key}" for key in ("uri", "token", "raw", "json.event.formatted", "ssl.validate.certs")),
    *(f"splunk.hec.ack.{key}" for key in ("enabled", "poll.interval", "poll.threads")),
    *(f"splunk.hec.{key}" for key in ("event.timeout", "max.retries", "max.outstanding.events", "max.batch.size")),
    *(f"splunk.hec.{key}" for key in ("total.channels", "use.record.timestamp")),
    *(f"splunk.{key}" for key in ("indexes", "sourcetypes", "sources")),
    *(f"splunk.header.{key}" for key in ("support", "custom", "index", "source", "sourcetype", "host")),
}
"""github.com/splunk/kafka-connect-splunk, SplunkSinkConnectorConfig.java."""

ELASTIC = {
    *(f"connection.{key}" for key in ("url", "username", "password")),
    *("key.ignore", "schema.ignore", "write.method", "behavior.on.null.values", "behavior.on.malformed.documents"),
    *("drop.invalid.message", "max.retries", "retry.backoff.ms", "flush.synchronously"),
}
"""docs.confluent.io/kafka-connectors/elasticsearch/current/configuration_options.html."""

LOGSTASH_KAFKA = {
    *("id", "bootstrap_servers", "topics", "group_id", "isolation_level", "auto_offset_reset", "enable_auto_commit"),
    *("decorate_events", "codec", "add_field"),
}
"""elastic.co/docs/reference/logstash/plugins/plugins-inputs-kafka."""

LOGSTASH_ELASTIC = {
    *("hosts", "api_key", "index", "document_id", "action", "pipeline", "data_stream", "manage_template"),
}
"""elastic.co/docs/reference/logstash/plugins/plugins-outputs-elasticsearch."""

LOGSTASH_SENTINEL = {
    *("client_app_Id", "client_app_secret", "tenant_id", "data_collection_endpoint", "dcr_immutable_id"),
    *("dcr_stream_name", "retransmission_time"),
}
"""learn.microsoft.com/azure/sentinel/connect-logstash-data-connection-rules."""

VECTOR: dict[str, set[str]] = {
    "kafka": {"type", "bootstrap_servers", "group_id", "topics", "auto_offset_reset", "decoding", "librdkafka_options"}
    | {"key_field", "topic_key", "partition_key", "offset_key", "headers_key"},
    "remap": {"type", "inputs", "source", "drop_on_error", "reroute_dropped"},
    "file": {"type", "inputs", "path", "encoding", "acknowledgements"},
    "elasticsearch": {"type", "inputs", "endpoints", "auth", "mode", "bulk", "id_key", "pipeline", "buffer"}
    | {"request_retry_partial", "acknowledgements"},
    "splunk_hec_logs": {"type", "inputs", "endpoint", "default_token", "index", "sourcetype", "timestamp_key", "buffer"}
    | {"encoding", "acknowledgements"},
}
"""vector.dev/docs/reference/configuration/, the pages of each component."""


def connector(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((SIEM / f"kafka-connect/{name}.json").read_bytes())["config"]
    return found


def logstash(name: str) -> Block:
    return read_logstash((SIEM / f"logstash/{name}.conf").read_text(encoding="utf-8"))


def vector() -> dict[str, Any]:
    return tomllib.loads((SIEM / "vector/vector.toml").read_text(encoding="utf-8"))


def sentinel() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SIEM / "sentinel/dcr.json").read_bytes())["properties"]
    return found


@pytest.mark.parametrize(("name", "own"), [("splunk-hec", SPLUNK), ("elasticsearch", ELASTIC)])
def test_kafka_connect_reads_our_topics_with_documented_keys(name: str, own: set[str]) -> None:
    config = connector(name)
    assert set(config) - CONNECT == own, "every key is documented, and all that matter are set"
    assert all(isinstance(value, str) for value in config.values())
    assert config["topics"].split(",") == DECISIONS
    assert config["consumer.override.isolation.level"] == "read_committed"
    assert config["consumer.override.auto.offset.reset"] == "earliest"
    assert config["errors.tolerance"] == "none", "a record that cannot be converted stops the task, it is not skipped"


def test_splunk_is_sent_events_until_they_are_acknowledged() -> None:
    config = connector("splunk-hec")
    assert (config["splunk.hec.raw"], config["splunk.hec.ack.enabled"]) == ("false", "true")
    assert (config["splunk.hec.max.retries"], config["splunk.header.support"]) == ("-1", "true")
    assert int(config["splunk.hec.event.timeout"]) >= 300
    assert config["splunk.hec.ssl.validate.certs"] == "true"
    assert config["value.converter"].endswith(".StringConverter"), "the finding goes in byte for byte"


def test_elasticsearch_through_connect_ends_in_the_index_of_the_template() -> None:
    config = connector("elasticsearch")
    assert config["behavior.on.malformed.documents"] == config["behavior.on.null.values"] == "fail"
    assert (config["drop.invalid.message"], config["max.retries"]) == ("false", str(2**31 - 1))
    assert config["flush.synchronously"] == "true", "a transform that renames topics needs it"
    replacement = config["transforms.index.replacement"].replace("$", "\\")
    for topic in (*DECISIONS, *(f"prod.{topic}" for topic in DECISIONS)):
        index = re.sub(config["transforms.index.regex"], replacement, topic)
        assert index == f"mediasieve-decisions-{topic.rpartition('.')[2]}"


@pytest.mark.parametrize("name", ["elastic", "sentinel"])
def test_logstash_reads_our_topics(name: str) -> None:
    inputs = {block.options["id"]: block.options for block in logstash(name).all("kafka")}
    assert {key: options["topics"] for key, options in inputs.items()} == {
        f"decisions_{name}": DECISIONS,
        f"deadletters_{name}": [Topic.DEAD_LETTER.value],
    }
    for options in inputs.values():
        assert set(options) <= LOGSTASH_KAFKA
        assert options["isolation_level"] == "read_committed"
        assert (options["enable_auto_commit"], options["auto_offset_reset"]) == (False, "earliest")
    assert inputs[f"deadletters_{name}"]["decorate_events"] == "extended", "headers come with it only"


def test_logstash_writes_each_event_under_its_uid_and_drops_nothing() -> None:
    file = logstash("elastic")
    outputs = {block.options["index"].rpartition("-")[0]: block.options for block in file.all("elasticsearch")}
    assert set(outputs) == {"mediasieve-unreadable", "mediasieve-decisions", "mediasieve-deadletters"}
    assert all(set(options) <= LOGSTASH_ELASTIC for options in outputs.values())
    decisions, letters = outputs["mediasieve-decisions"], outputs["mediasieve-deadletters"]
    assert decisions["document_id"] == "%{" + "".join(f"[{part}]" for part in UID.split(".")) + "}"
    assert (decisions["action"], decisions["pipeline"], decisions["data_stream"]) == (
        "index",
        "mediasieve-ocsf",
        "false",
    )
    letter = json.loads((generate.ROOT / "examples/valid/dead_letter/full.json").read_bytes())
    assert set(re.findall(r"\[(\w+)\]", letters["document_id"])) == {"topic", "partition", "offset"} <= set(letter)
    dates = [block.options["match"] for block in file.all("date")]
    assert dates == [["time", "UNIX_MS"], ["failed_at", "ISO8601"]]
    assert {"time"} <= set(json.loads(FINDINGS[0].read_bytes()))
    assert "failed_at" in letter


def test_logstash_keeps_its_queue_on_disk() -> None:
    pipelines = yaml.safe_load((SIEM / "logstash/pipelines.yml").read_text(encoding="utf-8"))
    assert [Path(p["path.config"]).name for p in pipelines] == ["elastic.conf", "sentinel.conf"]
    assert all(p["queue.type"] == "persisted" and p["queue.checkpoint.writes"] == 1 for p in pipelines)


def test_vector_reads_our_topics_and_waits_for_acknowledgements() -> None:
    config = vector()
    sources = config["sources"]
    assert {name: s["topics"] for name, s in sources.items()} == {
        "decisions": DECISIONS,
        "deadletters": [Topic.DEAD_LETTER.value],
    }
    for source in sources.values():
        assert source["librdkafka_options"]["isolation.level"] == "read_committed"
        assert source["auto_offset_reset"] == "earliest"
    for sink in config["sinks"].values():
        assert sink["acknowledgements"]["enabled"] is True
        assert sink.get("buffer", {"when_full": "block"})["when_full"] == "block"
        assert sink.get("buffer", {"type": "memory"})["type"] == "memory", "a disk buffer acknowledges before the sink"
        if sink["type"] == "splunk_hec_logs":
            assert sink["acknowledgements"]["indexer_acknowledgements_enabled"] is True


def test_vector_is_wired_up_with_documented_keys() -> None:
    config = vector()
    parts = {**config["sources"], **config["transforms"], **config["sinks"]}
    for name, part in parts.items():
        assert set(part) <= VECTOR[part["type"]], name
    dropped = {f"{name}.dropped" for name, part in config["transforms"].items() if part["reroute_dropped"]}
    used = {given for part in parts.values() for given in part.get("inputs", [])}
    assert used <= set(config["sources"]) | set(config["transforms"]) | dropped
    assert dropped <= used, "what a transform cannot read goes somewhere"
    assert set(config["sources"]) | set(config["transforms"]) <= used


def test_vector_writes_each_event_under_its_uid() -> None:
    config = vector()
    assert f".id = string!(.{UID})" in config["transforms"]["findings"]["source"]
    decisions = config["sinks"]["elasticsearch_decisions"]
    assert (decisions["id_key"], decisions["pipeline"], decisions["bulk"]["action"]) == (
        "id",
        "mediasieve-ocsf",
        "index",
    )
    assert decisions["bulk"]["index"].startswith("mediasieve-decisions-")
    letter = json.loads((generate.ROOT / "examples/valid/dead_letter/full.json").read_bytes())
    named = set(re.findall(r"[( ]\.([a-z_]+)\b", config["transforms"]["letters"]["source"]))
    assert named - {"headers", "id", "timestamp"} <= set(letter)
    finding = json.loads(FINDINGS[0].read_bytes())
    named = set(re.findall(r"\(\.([a-z_.]+)", config["transforms"]["findings"]["source"])) - {"kafka", "source_type"}
    assert named
    assert all(value_at(finding, path) is not None for path in named)


CASTS = {"string": "tostring", "int": "toint", "long": "tolong", "boolean": "tobool"}


@pytest.mark.parametrize("name", ["findings", "deadletters"])
def test_the_columns_of_sentinel_come_from_fields_that_exist(name: str) -> None:
    rule = sentinel()
    flow = rule["dataFlows"][0 if name == "findings" else 1]
    table = json.loads((SIEM / f"sentinel/table-{name}.json").read_bytes())["properties"]["schema"]
    columns = {column["name"]: column["type"] for column in table["columns"]}
    assert flow["outputStream"] == f"Custom-{table['name']}"
    projected = dict(re.findall(r"(\w+) = ([^,]+)", flow["transformKql"]))
    assert {"TimeGenerated", *projected} == set(columns)
    declared = {c["name"] for c in rule["streamDeclarations"][flow["streams"][0]]["columns"]}
    examples = FINDINGS if name == "findings" else sorted((generate.ROOT / "examples/valid/dead_letter").glob("*.json"))
    for column, source in projected.items():
        cast = CASTS.get(columns[column])
        path = source.removeprefix(f"{cast}(").removesuffix(")") if cast else source
        assert source == (f"{cast}({path})" if cast else path)
        path = re.sub(r"\[(\d+)\]", r".\1", path)
        assert path.partition(".")[0] in declared
        assert any(value_at(json.loads(p.read_bytes()), path) is not None for p in examples), path


def test_sentinel_is_sent_what_its_rule_declares() -> None:
    outputs = logstash("sentinel").all("microsoft-sentinel-log-analytics-logstash-output-plugin")
    assert {block.options["dcr_stream_name"] for block in outputs} == set(sentinel()["streamDeclarations"])
    assert all(set(block.options) == LOGSTASH_SENTINEL for block in outputs)
    added = [options for block in logstash("sentinel").all("mutate") if (options := block.options.get("add_field"))]
    assert added == [{"TimeGenerated": "%{@timestamp}"}]


def test_logstash_keeps_what_cannot_be_read_or_stored() -> None:
    pipelines = {p["pipeline.id"]: p for p in yaml.safe_load((SIEM / "logstash/pipelines.yml").read_text("utf-8"))}
    assert pipelines["mediasieve-elastic"]["dead_letter_queue.enable"] is True
    for name, output in (("elastic", "elasticsearch"), ("sentinel", "file")):
        (section,) = logstash(name).all("output")
        unreadable = section.blocks[0]
        assert (unreadable.name, [block.name for block in unreadable.blocks]) == ("if", [output])
        assert "unreadable" in str(unreadable.blocks[0].options)
        text = (SIEM / f"logstash/{name}.conf").read_text("utf-8")
        assert text.index('"_jsonparsefailure" in [tags]') < text.index('} else if [@metadata][kind] == "decision"')


def test_splunk_reads_a_whole_finding() -> None:
    props = configparser.ConfigParser(interpolation=None)
    props.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    props.read_string((SIEM / "splunk/props.conf").read_text(encoding="utf-8"))
    assert set(props.sections()) == {"mediasieve:ocsf", "mediasieve:deadletter"}
    largest = max(spec.max_bytes for spec in TOPICS if spec.topic in DECISION_TOPICS.values())
    for section in props.sections():
        assert props[section]["KV_MODE"] == "json"
        assert int(props[section]["TRUNCATE"]) >= largest
    sourcetypes = {connector("splunk-hec")["splunk.sourcetypes"]}
    sourcetypes |= {sink["sourcetype"] for sink in vector()["sinks"].values() if sink["type"] == "splunk_hec_logs"}
    assert sourcetypes == set(props.sections())


def test_no_secret_lies_in_a_configuration() -> None:
    secret = re.compile(r"(token|password|secret|api_key)\"?\s*(?:=>|=|:)\s*\"(?P<value>[^\"]*)\"", re.IGNORECASE)
    found = [
        match["value"]
        for path in sorted(SIEM.rglob("*"))
        if path.is_file()
        for match in secret.finditer(path.read_text(encoding="utf-8"))
    ]
    assert len(found) >= 8
    assert all(value.startswith("${") for value in found)


@pytest.mark.parametrize("text", ["input {", "input { kafka { topics => } }", "input } {", "input { ` }"])
def test_the_reader_of_logstash_would_notice_a_broken_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"balance|ends inside|missing|unexpected"):
        read_logstash(text)
