"""Asyncio client for the Qwen-Image LoRA models of WaveSpeedAI."""
