"""The parts of the hosts' schemas that our files use, in our words, after the hosts' own references.

Only what is named here is allowed, so that a field that is misspelt, or that a host does not know, is an error.

Sources, read in November 2026:
    fly.toml: https://fly.io/docs/reference/configuration/ and https://json.schemastore.org/fly.json
    app.json: https://devcenter.heroku.com/articles/app-json-schema
    heroku.yml: https://devcenter.heroku.com/articles/build-docker-images-heroku-yml
    railway.json: https://docs.railway.com/config-as-code/reference and https://railway.com/railway.schema.json
    render.yaml: https://render.com/docs/blueprint-spec and https://render.com/schema/render.yaml.json
    Elastic Beanstalk: https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SPAN: Schema = {"type": "string", "pattern": r"^\d+(ms|s|m)$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def record(*required: str, **properties: Schema) -> Schema:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(*values: str) -> Schema:
    """One of these words."""
    return {"enum": list(values)}


def several(item: Schema) -> Schema:
    """A list that is not empty."""
    return {"type": "array", "items": item, "minItems": 1}


FLY = record(
    "app",
    app=TEXT,
    primary_region={"type": "string", "pattern": "^[a-z]{3}$"},
    kill_signal=one_of("SIGINT", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGSTOP"),
    kill_timeout=SPAN,
    build={
        "type": "object",
        "properties": {"dockerfile": TEXT, "build-target": TEXT, "args": TEXTS},
        "additionalProperties": False,
    },
    env=TEXTS,
    mounts=record("source", "destination", source=TEXT, destination=TEXT),
    http_service=record(
        "internal_port",
        internal_port=COUNT,
        force_https=FLAG,
        auto_stop_machines=one_of("off", "stop", "suspend"),
        auto_start_machines=FLAG,
        min_machines_running=COUNT,
        concurrency=record(type=one_of("connections", "requests"), soft_limit=COUNT, hard_limit=COUNT),
        checks=several(record("path", method=one_of("GET"), path=TEXT, grace_period=SPAN, interval=SPAN, timeout=SPAN)),
    ),
    vm=several(record(size=TEXT, memory={"type": "string", "pattern": r"^\d+(mb|gb)$"})),
)

HEROKU_APP = record(
    "name",
    name={"type": "string", "maxLength": 300},
    description=TEXT,
    keywords=several(TEXT),
    stack=one_of("container", "heroku-22", "heroku-24"),
    formation={
        "type": "object",
        "additionalProperties": record(
            "quantity",
            quantity=COUNT,
            size=one_of("eco", "basic", "standard-1x", "standard-2x", "performance-m", "performance-l"),
        ),
    },
    addons=several(TEXT),
    env={
        "type": "object",
        "propertyNames": {"pattern": "^[A-Z][A-Z0-9_]*$"},
        "additionalProperties": record(
            "description", description=TEXT, value={"type": "string"}, required=FLAG, generator=one_of("secret")
        ),
    },
)

HEROKU_BUILD = record(
    "build",
    build=record("docker", docker=record("web", web=TEXT), config=TEXTS),
    release=record("command", image=TEXT, command=several(TEXT)),
    run=record("web", web=TEXT),
)

RAILWAY = {
    "type": "object",
    "properties": {
        "$schema": {"const": "https://railway.com/railway.schema.json"},
        "build": record(
            builder=one_of("RAILPACK", "DOCKERFILE"),
            dockerfilePath=TEXT,
            buildCommand=TEXT,
            watchPatterns=several(TEXT),
        ),
        "deploy": record(
            startCommand=TEXT,
            preDeployCommand=several(TEXT),
            healthcheckPath=TEXT,
            healthcheckTimeout=COUNT,
            overlapSeconds=COUNT,
            drainingSeconds=COUNT,
            numReplicas=COUNT,
            requiredMountPath=TEXT,
            restartPolicyType=one_of("ON_FAILURE", "ALWAYS", "NEVER"),
            restartPolicyMaxRetries=COUNT,
        ),
    },
    "required": ["build", "deploy"],
    "additionalProperties": False,
}

_RENDER_VARIABLE: Schema = {
    "oneOf": [
        record("key", "value", key=TEXT, value={"type": "string"}),
        record("key", "generateValue", key=TEXT, generateValue={"const": True}),
        record("key", "sync", key=TEXT, sync={"const": False}),
        record(
            "key",
            "fromDatabase",
            key=TEXT,
            fromDatabase=record(
                "name", "property", name=TEXT, property=one_of("connectionString", "host", "port", "user", "password")
            ),
        ),
        record(
            "key",
            "fromService",
            key=TEXT,
            fromService=record(
                "type",
                "name",
                "property",
                type=one_of("web", "pserv", "worker", "keyvalue"),
                name=TEXT,
                property=one_of("connectionString", "host", "port", "hostport"),
            ),
        ),
    ]
}
_RENDER_PLAN = one_of("free", "starter", "standard", "pro", "pro plus", "pro max", "pro ultra")
_RENDER_WEB = record(
    "type",
    "name",
    "runtime",
    type={"const": "web"},
    name=TEXT,
    runtime={"const": "docker"},
    plan=_RENDER_PLAN,
    dockerfilePath=TEXT,
    dockerContext=TEXT,
    dockerCommand=TEXT,
    preDeployCommand=TEXT,
    healthCheckPath=TEXT,
    maxShutdownDelaySeconds={"type": "integer", "minimum": 1, "maximum": 300},
    autoDeployTrigger=one_of("off", "commit", "checksPass"),
    envVars=several(_RENDER_VARIABLE),
)
_RENDER_REDIS = record(
    "type",
    "name",
    "ipAllowList",
    type={"const": "keyvalue"},
    name=TEXT,
    plan=_RENDER_PLAN,
    maxmemoryPolicy=TEXT,
    ipAllowList={"type": "array"},
)
RENDER = record(
    "services",
    services=several({"oneOf": [_RENDER_WEB, _RENDER_REDIS]}),
    databases=several(record("name", name=TEXT, plan=TEXT, postgresMajorVersion=TEXT, ipAllowList={"type": "array"})),
)

_NUMBER: Schema = {"type": "string", "pattern": r"^\d+$"}
BEANSTALK = record(
    "option_settings",
    option_settings={
        "type": "object",
        "properties": {
            "aws:elasticbeanstalk:environment": record(
                EnvironmentType=one_of("LoadBalanced", "SingleInstance"),
                LoadBalancerType=one_of("application", "network", "classic"),
            ),
            "aws:elasticbeanstalk:environment:process:default": record(
                Port=_NUMBER,
                Protocol=one_of("HTTP", "HTTPS"),
                HealthCheckPath=TEXT,
                HealthCheckInterval=_NUMBER,
                HealthCheckTimeout=_NUMBER,
                DeregistrationDelay=_NUMBER,
            ),
            "aws:elasticbeanstalk:command": record(
                DeploymentPolicy=one_of("AllAtOnce", "Rolling", "RollingWithAdditionalBatch", "Immutable"),
                BatchSizeType=one_of("Percentage", "Fixed"),
                BatchSize=_NUMBER,
            ),
            "aws:autoscaling:launchconfiguration": record(IamInstanceProfile=TEXT),
            "aws:ec2:instances": record(InstanceTypes=TEXT),
            "aws:autoscaling:asg": record(MinSize=_NUMBER, MaxSize=_NUMBER),
            "aws:elasticbeanstalk:application:environment": TEXTS,
        },
        "additionalProperties": False,
    },
)
