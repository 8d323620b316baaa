# The rights of the function: one statement for each need, without `*`. Metrics need no permission: they are lines of the log
# (docs/METRICS.md).

resource "aws_iam_role" "function" {
  name                 = "${var.name}-${local.region}"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.permissions_boundary == "" ? null : var.permissions_boundary
  tags                 = var.tags
}

data "aws_iam_policy_document" "assume" {
  statement {
    sid     = "BeTheFunction"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "function" {
  name   = "tallymark"
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.function.json
}

# The network interfaces of a function in a VPC. EC2 has no narrower resource for them than `*`, so AWS's own policy is
# used, and only in a VPC.
resource "aws_iam_role_policy_attachment" "vpc" {
  count = local.is_in_vpc ? 1 : 0

  role       = aws_iam_role.function.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

data "aws_iam_policy_document" "function" {
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function.arn}:*"]
  }

  statement {
    sid = "KeepCheckpoints"
    actions = [
      "dynamodb:BatchGetItem",
      "dynamodb:DescribeTable",
      "dynamodb:GetItem",
      "dynamodb:Query",
      "dynamodb:UpdateItem",
    ]
    resources = [local.table_arn]
  }

  statement {
    sid       = "FindUnfinished"
    actions   = ["dynamodb:Query"]
    resources = ["${local.table_arn}/index/unfinished"]
  }

  statement {
    sid       = "SendSlices"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.fresh.arn, aws_sqs_queue.backfill.arn]
  }

  # A message that no try can understand becomes a dead letter immediately.
  statement {
    sid       = "BuryMessages"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.fresh_dead_letters.arn, aws_sqs_queue.backfill_dead_letters.arn]
  }

  # Lambda's poller works with this role.
  statement {
    sid       = "ReceiveSlices"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
    resources = [aws_sqs_queue.fresh.arn, aws_sqs_queue.backfill.arn]
  }

  statement {
    sid       = "ReadQueueDepth"
    actions   = ["sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.fresh.arn, aws_sqs_queue.backfill.arn]
  }

  # A slice whose lease is held comes back when the lease ends, one that yielded immediately.
  statement {
    sid       = "SayWhenASliceComesBack"
    actions   = ["sqs:ChangeMessageVisibility"]
    resources = [aws_sqs_queue.fresh.arn, aws_sqs_queue.backfill.arn]
  }

  statement {
    sid       = "KeepFailedInvocations"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.invocation_dead_letters.arn]
  }

  dynamic "statement" {
    for_each = var.config_parameter == "" ? [] : [1]
    content {
      sid       = "ReadConfiguration"
      actions   = ["ssm:GetParameter"]
      resources = ["${local.ssm_arn}${var.config_parameter}"]
    }
  }

  dynamic "statement" {
    for_each = var.source_parameter == "" ? [] : [1]
    content {
      sid       = "ReadSourceParameter"
      actions   = ["ssm:GetParameter"]
      resources = ["${local.ssm_arn}${var.source_parameter}"]
    }
  }

  dynamic "statement" {
    for_each = var.target_parameter == "" ? [] : [1]
    content {
      sid       = "ReadTargetParameter"
      actions   = ["ssm:GetParameter"]
      resources = ["${local.ssm_arn}${var.target_parameter}"]
    }
  }

  dynamic "statement" {
    for_each = var.source_secret == "" ? [] : [1]
    content {
      sid       = "ReadSourceSecret"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [var.source_secret]
    }
  }

  dynamic "statement" {
    for_each = var.target_secret == "" ? [] : [1]
    content {
      sid       = "ReadTargetSecret"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [var.target_secret]
    }
  }

  dynamic "statement" {
    for_each = var.notify_parameter == "" ? [] : [1]
    content {
      sid       = "ReadNotifyParameter"
      actions   = ["ssm:GetParameter"]
      resources = ["${local.ssm_arn}${var.notify_parameter}"]
    }
  }

  dynamic "statement" {
    for_each = var.ping_parameter == "" ? [] : [1]
    content {
      sid       = "ReadPingParameter"
      actions   = ["ssm:GetParameter"]
      resources = ["${local.ssm_arn}${var.ping_parameter}"]
    }
  }

  dynamic "statement" {
    for_each = var.notify_secret == "" ? [] : [1]
    content {
      sid       = "ReadNotifySecret"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [var.notify_secret]
    }
  }

  dynamic "statement" {
    for_each = var.ping_secret == "" ? [] : [1]
    content {
      sid       = "ReadPingSecret"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [var.ping_secret]
    }
  }

  dynamic "statement" {
    for_each = var.source_db_user == "" ? [] : [1]
    content {
      sid       = "ConnectToSource"
      actions   = ["rds-db:connect"]
      resources = [var.source_db_user]
    }
  }

  dynamic "statement" {
    for_each = var.target_db_user == "" ? [] : [1]
    content {
      sid       = "ConnectToTarget"
      actions   = ["rds-db:connect"]
      resources = [var.target_db_user]
    }
  }

  # Messages of the queues: a sender needs a new data key, a receiver decrypts it.
  dynamic "statement" {
    for_each = var.data_key == "" ? [] : [1]
    content {
      sid       = "EncryptMessages"
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
      resources = [var.data_key]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["sqs.${local.region}.${data.aws_partition.this.dns_suffix}"]
      }
    }
  }

  # DynamoDB uses the key with the rights of its caller.
  dynamic "statement" {
    for_each = var.data_key == "" ? [] : [1]
    content {
      sid       = "EncryptCheckpoints"
      actions   = ["kms:DescribeKey", "kms:Decrypt"]
      resources = [var.data_key]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["dynamodb.${local.region}.${data.aws_partition.this.dns_suffix}"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.secrets_keys) == 0 ? [] : [1]
    content {
      sid       = "DecryptSecrets"
      actions   = ["kms:Decrypt"]
      resources = local.secrets_keys

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values = [
          "ssm.${local.region}.${data.aws_partition.this.dns_suffix}",
          "secretsmanager.${local.region}.${data.aws_partition.this.dns_suffix}",
        ]
      }
    }
  }
}
