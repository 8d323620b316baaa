resource "aws_cloudwatch_dashboard" "this" {
  count = var.create_dashboard ? 1 : 0

  dashboard_name = var.name

  dashboard_body = templatefile("${path.module}/dashboard.json.tftpl", {
    name   = var.name
    region = local.region
    table  = local.table
    lag    = var.watermark_lag_seconds_max
  })
}
