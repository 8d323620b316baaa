output "function_name" {
  description = "What `tallymark … --via` names."
  value       = aws_lambda_function.this.function_name
}

output "table_name" {
  description = "What [checkpoint] table names."
  value       = var.table_name
}

output "queue_urls" {
  description = "The queues, and what was given up."
  value = {
    fresh                   = aws_sqs_queue.fresh.url
    fresh_dead_letters      = aws_sqs_queue.fresh_dead_letters.url
    backfill                = aws_sqs_queue.backfill.url
    backfill_dead_letters   = aws_sqs_queue.backfill_dead_letters.url
    invocation_dead_letters = aws_sqs_queue.invocation_dead_letters.url
  }
}

output "next" {
  description = "What to run next, in this order."
  value = [
    "AWS_REGION=${local.region} tallymark init && AWS_REGION=${local.region} tallymark check",
    "AWS_REGION=${local.region} tallymark backfill ROLLUP --via ${aws_lambda_function.this.function_name}",
    "AWS_REGION=${local.region} tallymark status",
  ]
}
