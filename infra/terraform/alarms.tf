# The alarms, which docs/RUNBOOK.md explains.

locals {
  topic   = var.alarm_email == "" ? var.alarm_topic : aws_sns_topic.alarms[0].arn
  actions = local.topic == "" ? [] : [local.topic]

  of_function = { FunctionName = var.name }

  alarms = {
    # One good report within the hour is enough. Silence is as bad as lag, as a disabled
    # schedule would otherwise go unnoticed.
    watermark-lag = {
      description = "Rollups have been behind for an hour, or no tick has reported for an hour."
      namespace   = "Tallymark", metric = "WatermarkLag", dimensions = local.of_function
      statistic   = "Minimum", operator = "GreaterThanThreshold", threshold = var.watermark_lag_seconds_max
      periods     = 12, datapoints = 12, missing = "breaching"
    }
    # Each tick reports this and the next two again; between ticks the alarm stays as it is.
    slices-exhausted = {
      description = "Slices have failed too often and wait for an operator."
      namespace   = "Tallymark", metric = "SlicesExhausted", dimensions = local.of_function
      statistic   = "Maximum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 1, datapoints = 1, missing = "ignore"
    }
    slices-differing = {
      description = "The scrub has found slices that differ from the source."
      namespace   = "Tallymark", metric = "SlicesDiffering", dimensions = local.of_function
      statistic   = "Maximum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 1, datapoints = 1, missing = "ignore"
    }
    capture-missing = {
      description = "Late changes of some rollups are missed."
      namespace   = "Tallymark", metric = "CaptureMissing", dimensions = local.of_function
      statistic   = "Maximum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 1, datapoints = 1, missing = "ignore"
    }
    # Of the periods that have a report, every one must say so.
    rollups-held = {
      description = "Due work has been held back for held_hours_max by a pause, the hours or the source's load."
      namespace   = "Tallymark", metric = "RollupsHeld", dimensions = local.of_function
      statistic   = "Minimum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 12 * var.held_hours_max, datapoints = 12 * var.held_hours_max, missing = "missing"
    }
    # A single error that a retry corrects must not page an operator.
    function-errors = {
      description = "Invocations fail again and again."
      namespace   = "AWS/Lambda", metric = "Errors", dimensions = local.of_function
      statistic   = "Sum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 12, datapoints = 2, missing = "notBreaching"
    }
    fresh-dead-letters = {
      description = "A fresh slice was delivered twenty times in vain, or its message is not understood."
      namespace   = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = aws_sqs_queue.fresh_dead_letters.name }
      statistic   = "Maximum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 1, datapoints = 1, missing = "notBreaching"
    }
    backfill-dead-letters = {
      description = "A backfill's slice was delivered twenty times in vain, or its message is not understood."
      namespace   = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = aws_sqs_queue.backfill_dead_letters.name }
      statistic   = "Maximum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 1, datapoints = 1, missing = "notBreaching"
    }
    invocation-dead-letters = {
      description = "A tick or another asynchronous invocation failed for good."
      namespace   = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = aws_sqs_queue.invocation_dead_letters.name }
      statistic   = "Maximum", operator = "GreaterThanOrEqualToThreshold", threshold = 1
      periods     = 1, datapoints = 1, missing = "notBreaching"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.description} docs/RUNBOOK.md#${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  period              = 300
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = each.value.missing
  actions_enabled     = var.alarm_actions
  alarm_actions       = local.actions
  ok_actions          = local.actions
  tags                = var.tags
}

resource "aws_sns_topic" "alarms" {
  count = var.alarm_email == "" ? 0 : 1

  name              = "${var.name}-alarms"
  kms_master_key_id = local.data_key
  tags              = var.tags
}

resource "aws_sns_topic_subscription" "alarms" {
  count = var.alarm_email == "" ? 0 : 1

  topic_arn = aws_sns_topic.alarms[0].arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_sns_topic_policy" "alarms" {
  count = var.alarm_email == "" ? 0 : 1

  arn    = aws_sns_topic.alarms[0].arn
  policy = data.aws_iam_policy_document.alarms[0].json
}

data "aws_iam_policy_document" "alarms" {
  count = var.alarm_email == "" ? 0 : 1

  statement {
    sid       = "TellOfAlarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms[0].arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.name}-*"]
    }
  }
}
