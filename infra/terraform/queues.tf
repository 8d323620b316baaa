# Two queues, so that a fresh slice never waits behind a backfill.

locals {
  # Encryption is by SQS itself, or by the installation's key.
  encrypted_by_sqs = var.data_key == "" ? true : null

  queues_with_tls = {
    fresh                 = aws_sqs_queue.fresh
    fresh_dead_letters    = aws_sqs_queue.fresh_dead_letters
    backfill              = aws_sqs_queue.backfill
    backfill_dead_letters = aws_sqs_queue.backfill_dead_letters
  }
}

resource "aws_sqs_queue" "fresh" {
  name                       = "${var.name}-fresh"
  sqs_managed_sse_enabled    = local.encrypted_by_sqs
  kms_master_key_id          = local.data_key
  visibility_timeout_seconds = local.visibility_seconds
  # Four days. The next tick sends again what is lost.
  message_retention_seconds = 345600
  tags                      = var.tags

  # Messages also come back to wait for a lease and to continue a large slice, so twenty is a low number.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.fresh_dead_letters.arn
    maxReceiveCount     = 20
  })
}

resource "aws_sqs_queue" "fresh_dead_letters" {
  name                    = "${var.name}-fresh-dead-letters"
  sqs_managed_sse_enabled = local.encrypted_by_sqs
  kms_master_key_id       = local.data_key
  # Fourteen days, which count from when the message was sent first.
  message_retention_seconds = local.dead_letters_seconds
  tags                      = var.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "fresh" {
  queue_url = aws_sqs_queue.fresh_dead_letters.url

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.fresh.arn]
  })
}

resource "aws_sqs_queue" "backfill" {
  name                       = "${var.name}-backfill"
  sqs_managed_sse_enabled    = local.encrypted_by_sqs
  kms_master_key_id          = local.data_key
  visibility_timeout_seconds = local.visibility_seconds
  # Seven days: ten years of hours take less with two at a time.
  message_retention_seconds = 604800
  tags                      = var.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.backfill_dead_letters.arn
    maxReceiveCount     = 20
  })
}

resource "aws_sqs_queue" "backfill_dead_letters" {
  name                      = "${var.name}-backfill-dead-letters"
  sqs_managed_sse_enabled   = local.encrypted_by_sqs
  kms_master_key_id         = local.data_key
  message_retention_seconds = local.dead_letters_seconds
  tags                      = var.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "backfill" {
  queue_url = aws_sqs_queue.backfill_dead_letters.url

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.backfill.arn]
  })
}

# The place for asynchronous invocations that failed or grew too old, and for ticks that could not be delivered.
resource "aws_sqs_queue" "invocation_dead_letters" {
  name                      = "${var.name}-invocation-dead-letters"
  sqs_managed_sse_enabled   = local.encrypted_by_sqs
  kms_master_key_id         = local.data_key
  message_retention_seconds = local.dead_letters_seconds
  tags                      = var.tags

  redrive_allow_policy = jsonencode({
    redrivePermission = "denyAll"
  })
}

resource "aws_sqs_queue_policy" "invocation_dead_letters" {
  queue_url = aws_sqs_queue.invocation_dead_letters.url
  policy    = data.aws_iam_policy_document.invocation_dead_letters.json
}

# A queue's policy may name that queue only, so each has one.
resource "aws_sqs_queue_policy" "with_tls" {
  for_each = local.queues_with_tls

  queue_url = each.value.url
  policy    = data.aws_iam_policy_document.with_tls[each.key].json
}

data "aws_iam_policy_document" "with_tls" {
  for_each = local.queues_with_tls

  statement {
    sid       = "RefuseWithoutTls"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [each.value.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

data "aws_iam_policy_document" "invocation_dead_letters" {
  statement {
    sid       = "RefuseWithoutTls"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.invocation_dead_letters.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  statement {
    sid       = "KeepUndeliveredTicks"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.invocation_dead_letters.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.tick.arn]
    }
  }
}
