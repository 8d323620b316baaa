# The resources of template.yaml, for Terraform. The statements of the role are the same, by name and action
# (infra/lint.py compares them).

data "aws_partition" "this" {}
data "aws_region" "this" {}
data "aws_caller_identity" "this" {}

locals {
  partition = data.aws_partition.this.partition
  # `name` is called `region` from version 6 of the provider on; `id` is the same in both.
  region  = data.aws_region.this.id
  account = data.aws_caller_identity.this.account_id

  # The name of this installation, so that two of them never share a table by accident.
  table     = var.table_name == "" ? var.name : var.table_name
  table_arn = "arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${local.table}"
  ssm_arn   = "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter"

  # AWS asks for six times the function's timeout.
  visibility_seconds = 6 * var.timeout_seconds

  dead_letters_seconds = 1209600

  # What `--via` names.
  live = "${var.name}:live"

  # Null is an absent argument.
  data_key = var.data_key == "" ? null : var.data_key
  # The keys of what the addresses are read from.
  secrets_keys = compact([var.secrets_key, var.data_key])

  is_in_vpc = length(var.vpc_subnets) > 0

  in_zip       = { TALLYMARK_CONFIG = "tallymark.toml" }
  in_parameter = { TALLYMARK_CONFIG_PARAMETER = var.config_parameter }
  # A map each, not an object, so that both branches are of one type.
  configuration = var.config_parameter == "" ? tomap(local.in_zip) : tomap(local.in_parameter)
}

# The same keys and index as `tallymark init` makes (src/checkpoint/store/dynamodb/table.rs). Protected: without it, `tallymark repair`
# has to rebuild the checkpoints from the markers.
resource "aws_dynamodb_table" "checkpoints" {
  count = var.create_table ? 1 : 0

  name                        = local.table
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = true
  hash_key                    = "pk"
  range_key                   = "sk"
  tags                        = var.tags

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  attribute {
    name = "unfinished"
    type = "S"
  }

  global_secondary_index {
    name            = "unfinished"
    hash_key        = "unfinished"
    range_key       = "sk"
    projection_type = "ALL"
  }

  point_in_time_recovery {
    enabled = true
  }

  # Without a block, DynamoDB encrypts with a key that AWS owns.
  dynamic "server_side_encryption" {
    for_each = var.data_key == "" ? [] : [1]
    content {
      enabled     = true
      kms_key_arn = var.data_key
    }
  }

  # For old history only; a lease never depends on it.
  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.data_key
  tags              = var.tags
}

# No reserved concurrency: where it is below the pollers' demand, good messages end as dead letters. The mappings'
# maximum_concurrency does it without.
#
# Every change publishes a version, and moves the alias `live` to it. The schedule and both queues invoke the alias, so
# that moving it back to an older version is the way back (docs/DEPLOY.md).
resource "aws_lambda_function" "this" {
  function_name    = var.name
  description      = "Accurate, rerunnable rollups of a PostgreSQL"
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  handler          = "bootstrap"
  runtime          = "provided.al2023"
  architectures    = [var.architecture]
  memory_size      = var.memory_size
  timeout          = var.timeout_seconds
  role             = aws_iam_role.function.arn
  kms_key_arn      = local.data_key
  publish          = true
  tags             = var.tags

  # X-Ray's permissions cannot be narrowed to a resource. A caller's trace is passed on all the same.
  tracing_config {
    mode = "PassThrough"
  }

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  environment {
    variables = merge(local.configuration, {
      TALLYMARK_TABLE              = local.table
      TALLYMARK_QUEUE_URL          = aws_sqs_queue.fresh.url
      TALLYMARK_BACKFILL_QUEUE_URL = aws_sqs_queue.backfill.url
      TALLYMARK_LOG                = var.log_filter
      TALLYMARK_METRICS            = var.create_dashboard ? "all" : "alarms"
    })
  }

  dynamic "vpc_config" {
    for_each = local.is_in_vpc ? [1] : []
    content {
      subnet_ids         = var.vpc_subnets
      security_group_ids = var.vpc_security_groups
    }
  }

  # A function that cannot write its log or reach its queues fails its first invocations.
  depends_on = [aws_iam_role_policy.function, aws_iam_role_policy_attachment.vpc]
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  description      = "What the schedule and the queues invoke"
  function_name    = aws_lambda_function.this.function_name
  function_version = aws_lambda_function.this.version
}

# Of ticks and of other asynchronous invocations. A newer tick finds everything that an older one would.
resource "aws_lambda_function_event_invoke_config" "this" {
  function_name                = aws_lambda_function.this.function_name
  qualifier                    = aws_lambda_alias.live.name
  maximum_event_age_in_seconds = 3600
  maximum_retry_attempts       = 1

  destination_config {
    on_failure {
      destination = aws_sqs_queue.invocation_dead_letters.arn
    }
  }
}

# EventBridge rules follow UTC; rollups have time zones of their own.
resource "aws_cloudwatch_event_rule" "tick" {
  name                = "${var.name}-tick"
  description         = "Finds slices that are due"
  schedule_expression = var.schedule_rate
  state               = var.schedule_enabled ? "ENABLED" : "DISABLED"
  tags                = var.tags
}

resource "aws_cloudwatch_event_target" "tick" {
  rule = aws_cloudwatch_event_rule.tick.name
  arn  = aws_lambda_alias.live.arn

  retry_policy {
    maximum_event_age_in_seconds = 3600
    maximum_retry_attempts       = 3
  }

  dead_letter_config {
    arn = aws_sqs_queue.invocation_dead_letters.arn
  }
}

resource "aws_lambda_permission" "tick" {
  statement_id  = "Tick"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this.function_name
  qualifier     = aws_lambda_alias.live.name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.tick.arn
}

resource "aws_lambda_event_source_mapping" "fresh" {
  event_source_arn        = aws_sqs_queue.fresh.arn
  function_name           = aws_lambda_alias.live.arn
  batch_size              = 1
  function_response_types = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = var.fresh_concurrency
  }
}

resource "aws_lambda_event_source_mapping" "backfill" {
  event_source_arn        = aws_sqs_queue.backfill.arn
  function_name           = aws_lambda_alias.live.arn
  batch_size              = 1
  function_response_types = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = var.backfill_concurrency
  }
}
