"""Checks beyond the linters of infra/lint.sh.

- Every policy of template.yaml and of infra/terraform goes through parliament, with all options switched on and
  with none. Statements have a name, and neither an action nor a resource is a wildcard.
- The Terraform module has the template's statements (name, actions, resources), alarms and dashboard.
- Each queue refuses calls without TLS; each parameter that reaches the function publishes a version of it.
- docs/METRICS.md and docs/RUNBOOK.md know every metric and alarm.
- docs/COST.md holds what infra/cost.py computes.

Ends with 1 and a line for each thing that is wrong.
"""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import hcl2
from parliament import analyze_policy_string
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

# The translator's own metrics, which are not collected here.
logging.getLogger("samtranslator.metrics.metrics").setLevel(logging.ERROR)
# SAM requires a region, without contacting it.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

ROOT = Path(__file__).resolve().parent.parent
TERRAFORM = ROOT / "infra" / "terraform"
PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "tallymark",
    "AWS::URLSuffix": "amazonaws.com",
}
ARN = "arn:aws:{}:us-east-1:123456789012:{}"
KEY = ARN.format("kms", "key/0a1b2c3d-0000-0000-0000-000000000000")
DATA_KEY = ARN.format("kms", "key/0a1b2c3d-0000-0000-0000-000000000001")
# Every option in use.
OPTIONS = {
    "ConfigParameter": "/tallymark/config",
    "SourceParameter": "/tallymark/source",
    "SourceSecret": ARN.format("secretsmanager", "secret:source-a1b2c3"),
    "TargetParameter": "/tallymark/target",
    "TargetSecret": ARN.format("secretsmanager", "secret:target-a1b2c3"),
    "NotifyParameter": "/tallymark/notify",
    "NotifySecret": ARN.format("secretsmanager", "secret:notify-a1b2c3"),
    "PingParameter": "/tallymark/ping",
    "PingSecret": ARN.format("secretsmanager", "secret:ping-a1b2c3"),
    "SecretsKey": KEY,
    "DataKey": DATA_KEY,
    "PermissionsBoundary": "arn:aws:iam::123456789012:policy/boundary",
    "SourceDbUser": ARN.format("rds-db", "dbuser:db-ABCDEFGHIJKL01234/tallymark"),
    "TargetDbUser": ARN.format("rds-db", "dbuser:cluster-ABCDEFGHIJKL01234/tallymark"),
    "CreateDashboard": "true",
    "AlarmEmail": "someone@example.com",
    "VpcSubnets": "subnet-0a1b2c3d",
    "VpcSecurityGroups": "sg-0a1b2c3d",
}
# The same values under Terraform's names.
TERRAFORM_VALUES = {
    "aws_cloudwatch_log_group.function.arn": ARN.format("logs", "log-group:/aws/lambda/tallymark"),
    "aws_cloudwatch_event_rule.tick.arn": ARN.format("events", "rule/tallymark-tick"),
    "aws_sns_topic.alarms[0].arn": ARN.format("sns", "tallymark-alarms"),
    "local.table_arn": ARN.format("dynamodb", "table/tallymark"),
    "local.ssm_arn": ARN.format("ssm", "parameter"),
    "local.partition": "aws",
    "local.region": "us-east-1",
    "local.account": "123456789012",
    "data.aws_partition.this.dns_suffix": "amazonaws.com",
    "var.name": "tallymark",
    "var.config_parameter": OPTIONS["ConfigParameter"],
    "var.source_parameter": OPTIONS["SourceParameter"],
    "var.source_secret": OPTIONS["SourceSecret"],
    "var.target_parameter": OPTIONS["TargetParameter"],
    "var.target_secret": OPTIONS["TargetSecret"],
    "var.notify_parameter": OPTIONS["NotifyParameter"],
    "var.notify_secret": OPTIONS["NotifySecret"],
    "var.ping_parameter": OPTIONS["PingParameter"],
    "var.ping_secret": OPTIONS["PingSecret"],
    "var.secrets_key": KEY,
    "var.data_key": DATA_KEY,
    "var.source_db_user": OPTIONS["SourceDbUser"],
    "var.target_db_user": OPTIONS["TargetDbUser"],
    **{
        f"aws_sqs_queue.{name}.arn": ARN.format("sqs", "tallymark-" + name.replace("_", "-"))
        for name in ("fresh", "backfill", "fresh_dead_letters", "backfill_dead_letters", "invocation_dead_letters")
    },
    "local.secrets_keys": [KEY, DATA_KEY],
}
# What a `for_each` of a policy document goes over: the ARNs that `each.value.arn` is.
TERRAFORM_MAPS = {
    "local.queues_with_tls": [
        ARN.format("sqs", f"tallymark-{name}")
        for name in ("fresh", "fresh-dead-letters", "backfill", "backfill-dead-letters")
    ],
}

problems = []


def as_list(value):
    return value if isinstance(value, list) else [value]


class Template:
    """template.yaml as CloudFormation gets it from SAM, with values for its parameters."""

    def __init__(self, parameters):
        source = yaml_parse((ROOT / "template.yaml").read_text())
        # A zip that is not built yet.
        source["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/tallymark.zip"

        class NoManagedPolicies:
            def load(self):
                return {}

        whole = transform(source, {}, NoManagedPolicies())
        self.conditions = whole["Conditions"]
        self.parameters = {name: str(p["Default"]) for name, p in whole["Parameters"].items()} | parameters
        self.mappings = whole["Mappings"]
        resources = whole["Resources"]
        self.resources = {
            name: resource
            for name, resource in resources.items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }

    def holds(self, condition):
        if isinstance(condition, str):
            return self.holds(self.conditions[condition])
        ((function, arguments),) = condition.items()
        if function == "Condition":
            return self.holds(arguments)
        if function == "Fn::Not":
            return not self.holds(arguments[0])
        if function == "Fn::Or":
            return any(map(self.holds, arguments))
        if function == "Fn::Equals":
            left, right = (self.value(argument) for argument in arguments)
            return left == right
        raise ValueError(f"unknown function {function}")

    def value(self, node):
        """`node` with its functions evaluated. None is AWS::NoValue."""
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not None]
        if not isinstance(node, dict):
            return node
        if len(node) != 1 or not (set(node) <= {"Ref"} or next(iter(node)).startswith("Fn::")):
            values = {key: self.value(value) for key, value in node.items()}
            return {key: value for key, value in values.items() if value is not None}
        ((function, arguments),) = node.items()
        if function == "Ref":
            return None if arguments == "AWS::NoValue" else self.named(arguments)
        if function == "Fn::GetAtt":
            return self.attribute(*arguments)
        if function == "Fn::Sub":
            text, own = arguments if isinstance(arguments, list) else (arguments, {})
            own = {name: self.value(value) for name, value in own.items()}
            return re.sub(r"\$\{([^}]+)\}", lambda name: str(own.get(name[1]) or self.named(name[1])), text)
        if function == "Fn::If":
            return self.value(arguments[1 if self.holds(arguments[0]) else 2])
        if function == "Fn::FindInMap":
            table, first, second = (self.value(argument) for argument in arguments)
            return self.mappings[table][first][second]
        if function == "Fn::Split":
            return self.value(arguments[1]).split(arguments[0])
        if function == "Fn::Join":
            return arguments[0].join(self.value(arguments[1]))
        raise ValueError(f"unknown function {function}")

    def named(self, name):
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        if self.resources[name]["Type"] == "AWS::SNS::Topic":
            return self.attribute(name, "Arn")
        return self.physical(name)

    def physical(self, name):
        properties = self.resources[name]["Properties"]
        key = next(key for key in ("QueueName", "LogGroupName", "TopicName", "FunctionName", "RoleName") if key in properties)
        return self.value(properties[key])

    def attribute(self, name, attribute):
        if attribute == "QueueName":
            return self.physical(name)
        kind, physical = self.resources[name]["Type"], self.physical(name)
        if kind == "AWS::Logs::LogGroup":
            return ARN.format("logs", f"log-group:{physical}:*")
        service = {"AWS::SQS::Queue": "sqs", "AWS::SNS::Topic": "sns"}[kind]
        return ARN.format(service, physical)

    def policies(self):
        """Every policy document, under the name of its resource, without the policies for assuming roles."""
        for name, resource in self.resources.items():
            properties = resource["Properties"]
            if "PolicyDocument" in properties:
                yield name, self.value(properties["PolicyDocument"])
            for policy in properties.get("Policies", []):
                yield name, self.value(policy["PolicyDocument"])


def parameters_in(node, conditions):
    """The parameters that a part of the template names, also through conditions."""
    if isinstance(node, list):
        return set().union(*(parameters_in(part, conditions) for part in node))
    if not isinstance(node, dict):
        return set()
    found = parameters_in(list(node.values()), conditions)
    if "Ref" in node:
        found.add(node["Ref"])
    for name in [node["Condition"]] if set(node) == {"Condition"} else node.get("Fn::If", [])[:1]:
        found |= parameters_in(conditions[name], conditions)
    return found


def judge_function(function, template):
    """A new value of a parameter publishes a version only if the version's description holds the parameter."""
    described = parameters_in(function.pop("VersionDescription"), template.conditions)
    # These are no settings of a version.
    kept = {name: value for name, value in function.items() if name not in ("Events", "EventInvokeConfig", "Role")}
    missing = (parameters_in(kept, template.conditions) & template.parameters.keys()) - described
    problems.extend(f"template.yaml: {name} reaches the function, and is not in VersionDescription" for name in missing)


def judge_queues(template):
    """Each queue refuses calls without TLS."""
    refusing = set()
    for _, document in template.policies():
        refusing |= {s["Resource"] for s in document["Statement"] if s["Sid"] == "RefuseWithoutTls" and s["Effect"] == "Deny"}
    for name, resource in template.resources.items():
        if resource["Type"] == "AWS::SQS::Queue" and template.attribute(name, "Arn") not in refusing:
            problems.append(f"template.yaml: {name} takes calls without TLS")


def judge(where, document):
    """parliament's findings about a policy, and forbidden content."""
    for finding in analyze_policy_string(json.dumps(document)).findings:
        problems.append(f"{where}: {finding.issue}: {finding.detail} {finding.location.get('string', '')}")
    names = [statement.get("Sid") for statement in document["Statement"]]
    if None in names or len(set(names)) < len(names):
        problems.append(f"{where}: each statement needs a Sid of its own: {names}")
    for statement in document["Statement"]:
        # A refusal is of everything.
        for action in as_list(statement["Action"]) if statement["Effect"] == "Allow" else ():
            if "*" in action:
                problems.append(f"{where}: {statement.get('Sid')} allows {action}")
        for resource in as_list(statement["Resource"]):
            # A log group's streams have no other name.
            if "*" in resource and not (":log-group:" in resource and resource.endswith(":*")):
                problems.append(f"{where}: {statement.get('Sid')} is about {resource}")


def shape(document):
    """The part of a policy that must be the same in the template and in Terraform."""
    return {
        # Each queue has a refusal of the same name.
        statement["Sid"] if statement["Effect"] == "Allow" else f"{statement['Sid']} {statement['Resource']}": (
            tuple(sorted(as_list(statement["Action"]))),
            tuple(sorted(as_list(statement["Resource"]))),
            json.dumps(statement.get("Condition", {}), sort_keys=True),
        )
        for statement in document["Statement"]
    }


def plain(text):
    """A text of Terraform, with values for what it refers to."""
    text = text.strip('"') if isinstance(text, str) else text
    return re.sub(r"\$\{([^}]+)\}", lambda name: str(TERRAFORM_VALUES[name[1].strip()]), text)


def blocks(kind):
    """The blocks of this kind in the module: (type, name, body)."""
    for path in sorted(TERRAFORM.glob("*.tf")):
        with path.open() as file:
            for block in hcl2.load(file).get(kind, []):
                for first, rest in block.items():
                    if isinstance(rest, dict) and all(isinstance(body, dict) for body in rest.values()):
                        for second, body in rest.items():
                            yield first.strip('"'), second.strip('"'), body
                    else:
                        yield kind, first.strip('"'), rest


def terraform_policies(documents):
    for _, name, body in documents:
        statements = [*body.get("statement", [])]
        for dynamic in body.get("dynamic", []):
            for block in dynamic.values():
                statements += block["content"]
        for TERRAFORM_VALUES["each.value.arn"] in TERRAFORM_MAPS.get(expression(body.get("for_each", "")), [None]):
            yield name, {"Version": "2012-10-17", "Statement": [terraform_statement(body) for body in statements]}


def terraform_statement(body):
    statement = {"Sid": plain(body["sid"]), "Effect": plain(body.get("effect", "Allow"))}
    statement["Action"] = single([plain(action) for action in body["actions"]])
    if isinstance(body.get("resources"), str):
        statement["Resource"] = TERRAFORM_VALUES[expression(body["resources"])]
    elif "resources" in body:
        statement["Resource"] = single([plain(resource) for resource in body["resources"]])
    for principals in body.get("principals", []):
        kind, whom = plain(principals["type"]), plain(principals["identifiers"][0])
        statement["Principal"] = whom if kind == "*" else {kind: whom}
    for condition in body.get("condition", []):
        values = single([plain(value) for value in condition["values"]])
        statement["Condition"] = {plain(condition["test"]): {plain(condition["variable"]): values}}
    return statement


def expression(text):
    """What stands in `${…}`."""
    return re.sub(r"^\$\{|\}$", "", text)


def single(values):
    """A list of one as its element, as in the template."""
    return values[0] if len(values) == 1 else values


def judge_key_policy():
    """infra/key-policy.json, with values for its placeholders. `*` is the key itself there."""
    text = (ROOT / "infra" / "key-policy.json").read_text()
    text = text.replace("ACCOUNT", PSEUDO["AWS::AccountId"]).replace("REGION", "us-east-1").replace("STACK", "tallymark")
    for finding in analyze_policy_string(text).findings:
        if finding.issue != "RESOURCE_STAR":
            problems.append(f"infra/key-policy.json: {finding.issue}: {finding.detail}")


def compare(what, template, terraform):
    for name in sorted(template.keys() | terraform.keys()):
        ours, theirs = template.get(name), terraform.get(name)
        if ours != theirs:
            problems.append(f"{what} {name}: the template has {ours}, Terraform has {theirs}")


def alarms_of(template):
    found = {}
    for resource in template.resources.values():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            alarm = template.value(resource["Properties"])
            name = alarm["AlarmName"].removeprefix("tallymark-")
            keys = ("Namespace", "MetricName", "Statistic", "ComparisonOperator", "TreatMissingData")
            found[name] = tuple(alarm[key] for key in keys)
            if alarm["Period"] != 300:
                problems.append(f"alarm {name}: Terraform's periods are of 300 s")
    return found


def terraform_alarms(parsed):
    (alarms,) = (body["alarms"] for _, name, body in parsed if "alarms" in body)
    keys = ("namespace", "metric", "statistic", "operator", "missing")
    return {
        name.strip('"'): tuple(alarm[key].strip('"') for key in keys)
        for name, alarm in alarms.items()
        if isinstance(alarm, dict)
    }


def locals_of_alarms():
    with (TERRAFORM / "alarms.tf").open() as file:
        return [("locals", "", body) for body in hcl2.load(file)["locals"]]


def main():
    full, least = Template(OPTIONS), Template({})
    documents = list(block for block in blocks("data") if block[0] == "aws_iam_policy_document")
    statements, theirs = {}, {}
    for template in (full, least):
        for where, document in template.policies():
            judge(f"template.yaml: {where}", document)
            if template is full:
                statements |= shape(document)
    if "ManagedPolicyArns" in least.value(least.resources["FunctionRole"]["Properties"]):
        problems.append("template.yaml: FunctionRole: a managed policy although there is no VPC")
    for name, document in terraform_policies(documents):
        if all("Resource" in statement for statement in document["Statement"]):
            judge(f"infra/terraform: {name}", document)
            theirs |= shape(document)
    compare("statement", statements, theirs)
    source = yaml_parse((ROOT / "template.yaml").read_text())
    judge_function(source["Resources"]["Function"]["Properties"], full)
    judge_queues(full)
    judge_key_policy()

    alarms = alarms_of(full)
    compare("alarm", alarms, terraform_alarms(locals_of_alarms()))
    body = json.loads(full.value(full.resources["Dashboard"]["Properties"]["DashboardBody"]))
    values = {"name": "tallymark", "region": "us-east-1", "table": "tallymark", "lag": "7200"}
    text = (TERRAFORM / "dashboard.json.tftpl").read_text()
    if json.loads(re.sub(r"\$\{(\w+)\}", lambda name: values[name[1]], text)) != body:
        problems.append("infra/terraform/dashboard.json.tftpl differs from the template's dashboard")

    metrics = (ROOT / "docs" / "METRICS.md").read_text()
    shown = [metric for widget in body["widgets"] for metric in widget["properties"].get("metrics", [])]
    ours = {metric[1] for metric in shown if metric[0] == "Tallymark"}
    ours |= {alarm[1] for alarm in alarms.values() if alarm[0] == "Tallymark"}
    problems.extend(f"docs/METRICS.md lacks {name}" for name in sorted(ours) if f"`{name}`" not in metrics)
    runbook = (ROOT / "docs" / "RUNBOOK.md").read_text()
    problems.extend(f"docs/RUNBOOK.md has no `## {name}`" for name in alarms if f"\n## {name}\n" not in runbook)

    cost = subprocess.run([sys.executable, ROOT / "infra" / "cost.py", "--check"], capture_output=True, text=True)
    if cost.returncode != 0:
        problems.append((cost.stdout + cost.stderr).strip())

    for problem in problems:
        print(f"error: {problem}")
    print(f"{len(statements)} statements, {len(alarms)} alarms, {len(problems)} problems")
    sys.exit(bool(problems))


main()
