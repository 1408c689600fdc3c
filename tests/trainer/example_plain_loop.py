"""Distil a student in a plain PyTorch loop: python example_plain_loop.py CACHE_URL DATA_SPEC"""

import sys

import torch
from torch.utils.data import DataLoader

from cache_builder.views import normalise
from trainer import LOSSES, RecordDecoder, ReplayDataset, TeacherCache
from trainer.students import cnn3

cache = TeacherCache.open(sys.argv[1])
dataset = ReplayDataset(cache, sys.argv[2])  # the views the teacher saw, checked against the cache
loader = DataLoader(dataset, batch_size=64, shuffle=True)
seen, views = cache.manifest.input, cache.manifest.views.count
decode, kd = RecordDecoder(cache.manifest), LOSSES["kd"](temperature=4.0)
student = cnn3(num_classes=cache.manifest.classes)
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)

for epoch in range(6):
    dataset.set_epoch(epoch)  # epoch e sees view e mod V
    for batch in loader:
        records = torch.from_numpy(cache.fetch(epoch % views, batch.row))
        logits = student(normalise(batch.image, seen.mean, seen.std))
        loss = kd(logits, decode(records), batch.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
torch.save(student.state_dict(), "student.pt")
