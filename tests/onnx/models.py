"""The networks that export.py writes as ONNX: narrow, but built as the well-known ones are."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def mlp(activation=nn.ReLU, widths=(12, 24, 16, 5)):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class LeNet(nn.Module):
    """Two convolutions, two linear layers, dropout, log-softmax: PyTorch's MNIST example, narrow."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 8, 5)
        self.dropout = nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.dropout(torch.flatten(x, 1))
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


class Vgg(nn.Module):
    """torchvision's VGG: blocks of convolutions, an adaptive pool and a classifier with dropout."""

    def __init__(self, blocks=((4, 4), (8, 8), (16,)), batch_norm=False):
        super().__init__()
        layers, channels = [], 3
        for block in blocks:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1)]
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers += [nn.ReLU(inplace=True)]
                channels = width
            layers += [nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Linear(4 * channels, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 10))
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """torchvision's ResNet-18, whose width is 64."""

    def __init__(self, width=4, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for i in range(4):
            outputs = width << i
            blocks = BasicBlock(channels, outputs, 1 if i == 0 else 2), BasicBlock(outputs, outputs, 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            channels = outputs
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth, bottleneck):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, bottleneck * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(bottleneck * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)

    def forward(self, features):
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.Module):
    def __init__(self, layers, channels, growth, bottleneck):
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(channels + i * growth, growth, bottleneck) for i in range(layers))

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """torchvision's DenseNet: pre-activation, concatenation, transitions with average pools."""

    def __init__(self, growth=4, blocks=(2, 3), channels=8, bottleneck=2):
        super().__init__()
        features = [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        for i, layers in enumerate(blocks):
            features.append(DenseBlock(layers, channels, growth, bottleneck))
            channels += layers * growth
            if i + 1 < len(blocks):
                features += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                features += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
                channels //= 2
        self.features = nn.Sequential(*features, nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x):
        x = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        layers = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        layers += [nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)]
        layers += [nn.ReLU6(inplace=True), nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2: depthwise convolutions, ReLU6, linear bottlenecks, a mean over pixels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(inplace=True)),
            InvertedResidual(6, 4, 1, 1),
            InvertedResidual(4, 6, 2, 4),
            InvertedResidual(6, 6, 1, 4),
            InvertedResidual(6, 8, 1, 4),
            nn.Sequential(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True)),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


class GroupNormNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU(), nn.AvgPool2d(2),
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.GroupNorm(3, 12), nn.SiLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(12, 7)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


class Attention(nn.Module):
    """Attention from one matrix for queries, keys and values, by hand or by F.scaled_dot_product_attention."""

    def __init__(self, width, heads, causal, by_hand, length):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal, self.by_hand = heads, causal, by_hand
        if causal and by_hand:
            self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(x).split(width, dim=2)
        q, k, v = (t.view(n, length, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v))
        if self.by_hand:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            if self.causal:
                scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).contiguous().view(n, length, width))


class MultiheadAttention(nn.Module):
    """torch.nn.MultiheadAttention, with a causal mask on request."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.attention, self.causal = nn.MultiheadAttention(width, heads, batch_first=True), causal

    def forward(self, x):
        length = x.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1).to(x) if self.causal else None
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


class Block(nn.Module):
    def __init__(self, width, attention, activation):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), activation, nn.Linear(2 * width, width), nn.Dropout(0.1))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


def attention(kind, width, heads, causal, length):
    if kind == "multihead":
        return MultiheadAttention(width, heads, causal)
    return Attention(width, heads, causal, kind == "by_hand", length)


class Vit(nn.Module):
    """A ViT on 16 × 16 images with patches of 4 × 4; it reads out a class token or the mean of the tokens."""

    def __init__(self, kind, class_token, width=16, heads=2, depth=2):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width)) if class_token else None
        length = 16 + class_token
        self.positions = nn.Parameter(0.5 * torch.randn(1, length, width))
        self.blocks = nn.Sequential(*(Block(width, attention(kind, width, heads, False, length), nn.GELU()) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x[:, 0] if self.class_token is not None else x.mean(dim=1))


class Gpt(nn.Module):
    """A GPT with learned positions. `tied`: the head is the table of token embeddings."""

    def __init__(self, kind, tied=False, activation=None, vocabulary=13, length=10, width=16, heads=2, depth=2):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(
            Block(width, attention(kind, width, heads, True, length), activation or nn.GELU()) for _ in range(depth)
        )
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class EncoderClassifier(nn.Module):
    """torch.nn.TransformerEncoder on vectors, post-norm, with a mean over positions."""

    def __init__(self, width=12):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 3, 24, dropout=0.1, activation="gelu", batch_first=True)
        self.embed = nn.Linear(6, width)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class Activations(nn.Module):
    """A perceptron with a different activation after each layer."""

    def __init__(self):
        super().__init__()
        activations = [nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus()]
        layers = []
        for i, activation in enumerate(activations):
            layers += [nn.Linear(8 if i == 0 else 10, 10), activation]
        self.layers = nn.Sequential(*layers, nn.Linear(10, 4))

    def forward(self, x):
        return self.layers(x)


class Conv1dNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(2, 6, 5, padding=2), nn.Conv1d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.head(x.mean(2))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Rotary(nn.Module):
    """A language model with rotary positions, a gated activation, and a buffer and numbers in its code that are not parameters."""

    def __init__(self, vocabulary=13, length=10, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.embed, self.norm1, self.norm2 = nn.Embedding(vocabulary, width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(12, width)
        self.temperature = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("decay", torch.linspace(1, 0.5, length)[:, None] * torch.linspace(0.8, 1.2, width))
        self.head = nn.Linear(width, vocabulary)

    def rotate(self, x):
        size = x.shape[-1] // 2
        angles = torch.arange(x.shape[2])[:, None] * 10.0 ** (-torch.arange(size) / size)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x[..., :size], x[..., size:]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, tokens):
        x = self.embed(tokens)
        n, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = [z.view(n, t, self.heads, width // self.heads).transpose(1, 2) for z in (q, k, v)]
        scores = self.rotate(q) @ self.rotate(k).transpose(2, 3) * self.temperature
        x = x + self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, width)) * self.decay
        gate, y = self.up(self.norm2(x)).chunk(2, dim=2)
        return self.head(x + self.down(gate / (1 + gate.abs()) * y * 2))
