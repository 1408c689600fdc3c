"""Builds caches of teacher logits: data sets, views, teachers, the batch job and the store format."""
